"""The local engine: a job is a run of the local provider, a tuned model is an adapter on a base model held in memory.

engine.py    the contract: which models there are, who is asked       hosts.py     models in memory
training.py  one job as a run: prepare, wait for its turn, follow     spec.py      from a request to a job spec
"""
