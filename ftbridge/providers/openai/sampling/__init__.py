"""Completions of hosted models, one by one or as a batch."""
