"""The bodies of requests as validated models."""
