"""Base models: where they come from, how they are loaded, and the memory they need."""
