"""A run from its first stage to its verdict: drive, pause, cancel, resume, budget and fallback."""
