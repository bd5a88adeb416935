"""Results for people and programs, read from a run's files. Nothing here grades, trains or asks a model.

terminal/   tables and text          html/   one self-contained page          formats/   CSV, JUnit, Markdown, JSON, SARIF
"""
