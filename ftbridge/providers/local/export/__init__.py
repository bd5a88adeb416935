"""Weights for other programs: the adapter by itself, or merged into its base model."""
