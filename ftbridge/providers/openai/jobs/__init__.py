"""A fine-tuning job at the service: files uploaded once, the job created once, followed, and its results read."""
