"""Runs on disk: a folder each, whose journal is authoritative.

journal   append-only events, flushed before and after what they announce
run       the folder and its state, folded from the journal: `Manifest`, `JobHandle`, `TunedModel`, `ErrorDocument`
curves    figures of training by step, read from a journal
store     all runs of a home folder; what a crash left is swept
"""
