"""The candidates of a spec: base, its baselines, tuned; and how each of them asks.

The `retrieval` baseline is the base model, shown the passages of a documents folder that fit the question best:

    documents/*.md, *.txt ─▶ passages of about 150 words ─▶ BM25 by the item's last message ─▶ three in the prompt

Prompting, then retrieval, then tuning: what these achieve is worth knowing before a model is trained on facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ftbridge.data.examples import Message
from ftbridge.errors import UsageError
from ftbridge.evaluation.candidates import Candidate, few_shot, instructed, plain
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.search import searcher
from ftbridge.providers.base import Prompt
from ftbridge.spec import JobSpec


def candidates_of(spec: JobSpec, train: Path) -> list[Candidate]:
    """The candidates a spec asks for: base first, then its baselines, tuned last.

    `train` is the canonical training split; it is read only when `few_shot` first asks. Raises `UsageError` for a documents
    folder without text.
    """
    candidates = [
        baseline(name, spec, train)
        for name in ("zero_shot", "few_shot", "retrieval")
        if name in spec.evaluation.baselines
    ]
    return [Candidate("base", plain), *candidates, Candidate("tuned", plain)]


def baseline(name: str, spec: JobSpec, train: Path) -> Candidate:
    """One of the candidates that are the base model, prompted. Raises `UsageError` for retrieval without documents."""
    settings = spec.evaluation
    match name:
        case "zero_shot" if settings.system is not None:
            return instructed(settings.system)
        case "zero_shot":
            return Candidate(name, plain, shares="base")
        case "few_shot":
            return few_shot(train, examples=settings.few_shot_examples, seed=spec.seed, by=settings.few_shot_selection)
        case "retrieval" if settings.documents is not None:
            return retrieval(Path(settings.documents))
        case "retrieval":
            hint = "Name their folder: evaluation.documents in the spec, or --documents FOLDER"
            raise UsageError("retrieval needs documents.", hint=hint)
        case _:
            return Candidate(name, plain)


PASSAGES = 3
"""Passages shown with each item."""
_WORDS = 150
_SUFFIXES = (".md", ".txt")
_HEAD = "These passages may help:"


def retrieval(documents: Path) -> Candidate:
    """The candidate that is shown the best passages of `documents`, at the end of the item's system message.

    Passages without a word of the item's last message are not shown. Raises `UsageError` for a folder without text.
    """
    passages = read_passages(documents)
    search = searcher(passages)

    def prompt(item: Item) -> Prompt:
        best = search(item.prompt[-1].text, PASSAGES) if item.prompt else []
        messages = _with(item.prompt, [passages[index] for index in best]) if best else item.prompt
        return Prompt(key=item.key, messages=messages, tools=item.tools)

    return Candidate("retrieval", prompt)


def _with(prompt: Sequence[Message], passages: Sequence[str]) -> tuple[Message, ...]:
    """The prompt with passages at the end of its first system message, or of one made for them: templates take only one."""
    shown = "\n\n".join([_HEAD, *(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))])
    if prompt[0].role in ("system", "developer"):
        first = prompt[0].model_copy(update={"content": f"{prompt[0].text}\n\n{shown}"})
        return (first, *prompt[1:])
    return (Message(role="system", content=shown), *prompt)


def read_passages(documents: Path) -> list[str]:
    """The texts of a folder (.md and .txt, folders within included) as passages: paragraphs, joined up to about 150 words."""
    paths = sorted(path for path in documents.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    passages: list[str] = []
    for path in paths:
        gathered: list[str] = []
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
            if gathered and len(" ".join([*gathered, paragraph]).split()) > _WORDS:
                passages.append("\n".join(gathered))
                gathered = []
            if paragraph.strip():
                gathered.append(paragraph.strip())
        if gathered:
            passages.append("\n".join(gathered))
    if not passages:
        raise UsageError(f"{documents} contains no .md or .txt file with text.", hint="Name a folder with --documents.")
    return passages
