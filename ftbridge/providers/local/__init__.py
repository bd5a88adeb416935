"""Training on this machine. torch and transformers are imported in this package and nowhere else, inside the worker."""
