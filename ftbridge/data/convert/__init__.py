"""Convert between the formats of fine-tuning data: any of them to canonical JSON Lines, and back.

    bytes ──▶ records ──▶ example ──▶ record ──▶ bytes
      containers     shapes · recipe     shapes    writing

A *container* is how records are stored (JSON Lines, JSON array, CSV, TSV, Parquet, each possibly compressed); a *shape* is
what a record means (chat, prompt/completion, alpaca, ShareGPT, chosen/rejected, OpenAI's preference and reinforcement).
Nothing is lost in silence: a field that the other shape cannot hold is named, and let go only by name.
"""
