"""From an example to token ids and a loss mask, by the model's own chat template."""
