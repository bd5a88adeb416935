"""What the linter found, as people and programs read it: text, GitHub annotations, SARIF, and a rule explained."""
