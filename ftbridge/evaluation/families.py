"""Families of models, by their names: a judge favours what models of its own family write.

Self-preference: Panickssery et al. 2024, arXiv:2404.13076; Zheng et al. 2023, arXiv:2306.05685, section 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ftbridge.graders import judges_of
from ftbridge.spec.graders import Grader, PanelGrader

_FAMILIES = {
    "OpenAI": r"gpt|o[134](-|$)|chatgpt",
    "Claude": r"claude",
    "Gemini or Gemma": r"gemini|gemma",
    "Llama": r"llama",
    "Qwen": r"qwen|qwq",
    "Mistral": r"mistral|mixtral|ministral|magistral",
    "DeepSeek": r"deepseek",
    "Phi": r"phi",
    "SmolLM": r"smollm",
    "Granite": r"granite",
    "OLMo": r"olmo",
}
_WORD = {family: re.compile(rf"(?:^|[^a-z])(?:{names})", re.IGNORECASE) for family, names in _FAMILIES.items()}


def family_of(model: str) -> str | None:
    """The family of a model by its name; a distilled model is of the family that it was made from, which is named last."""
    name = model.removeprefix("ft:").rpartition("/")[2]
    named = [
        (words_found[-1].start(), family)
        for family, word in _WORD.items()
        if (words_found := list(word.finditer(name)))
    ]
    return max(named)[1] if named else None


def family_notes(graders: Sequence[Grader], models: Iterable[str]) -> list[str]:
    """A note for each judge that is of the same family as a model whose completions it grades."""
    families = {family for model in models if (family := family_of(model)) is not None}
    notes = [
        f"{judge.name}: the judge {judge.model} and the graded model are of the same family ({family}); judges favour "
        "their own family, so also let a judge of another family grade some of the items."
        for grader in graders
        for judge in (grader.judges if isinstance(grader, PanelGrader) else judges_of([grader]))
        if (family := family_of(judge.model)) in families
    ]
    return list(dict.fromkeys(notes))
