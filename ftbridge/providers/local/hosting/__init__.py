"""Serving local models: one process for each base model answers many clients at once, whatever adapters they ask for.

    Host (in the server)  ── JSON lines ──▶  process ── loop ─▶ Batch: one forward pass for every running answer
                                                                 ├─ join   new prompts, between two tokens
                                                                 ├─ step   one token for each row
                                                                 └─ leave  rows that are done

Rows of a batch may have different adapters: each linear layer adds each row's own low-rank product to the shared one.
"""
