"""What differs between candidates is noted, and nothing where nothing differs."""

from __future__ import annotations

from ftbridge.evaluation.notes import CompletionSource, differences


def test_the_same_place_and_model_differ_in_nothing():
    assert differences([CompletionSource("local", "smollm2", False), CompletionSource("local", "smollm2", False)]) == []
    assert differences([CompletionSource("openai", "gpt-4.1", True), CompletionSource("openai", "gpt-4o", True)]) == []


def test_places_and_local_base_models_are_named():
    [places] = differences([CompletionSource("openai", "gpt-4.1", True), CompletionSource("local", "smollm2", False)])
    assert "local, openai" in places
    assert "chat template" in places
    [models] = differences([CompletionSource("local", "smollm2", False), CompletionSource("local", "qwen", False)])
    assert "qwen, smollm2" in models
