"""Runs: a folder each, whose journal is the truth."""
