"""What differs between those who answered is told, and nothing where nothing differs."""

from __future__ import annotations

from ftbridge.evaluation.sides import differences


def test_the_same_place_and_model_differ_in_nothing():
    assert differences([("local", "smollm2"), ("local", "smollm2")]) == []
    assert differences([("openai", "gpt-4.1"), ("openai", "gpt-4o")]) == []


def test_places_and_local_base_models_are_named():
    [places] = differences([("openai", "gpt-4.1"), ("local", "smollm2")])
    assert "local, openai" in places
    assert "chat template" in places
    [models] = differences([("local", "smollm2"), ("local", "qwen")])
    assert "qwen, smollm2" in models
