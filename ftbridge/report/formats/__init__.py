"""Results for other programs: CSV, JUnit, Markdown, JSON, SARIF and annotations."""
