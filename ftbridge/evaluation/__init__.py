"""The judge: candidates answer the same items, graders score the answers, and statistics compare them in pairs."""
