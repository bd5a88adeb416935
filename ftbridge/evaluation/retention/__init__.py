"""Retention: what the base model knew must not be forgotten (catastrophic forgetting; McCloskey and Cohen 1989).

suite and canaries ─▶ data/retention.jsonl ─▶ base and tuned answer ─▶ checks ─▶ kept, worse, or not enough data

questions.py   the general suite, and canaries of your own, as items that every candidate can answer
checks.py      whether an answer passes
judge.py       scores by kind, a paired verdict, and what was lost
"""
