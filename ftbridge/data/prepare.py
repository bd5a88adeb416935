"""From a spec's data section to canonical bytes: read, refuse what would spoil the run, split, write, hash.

    train.jsonl  validation.jsonl  test.jsonl     one canonical line for each example, in the order they were read
    replay.jsonl                                  the prompts of data.replay, in the order of their use
    lines.json                                    where each line came from, so that later errors can name it
    manifest.json                                 examples, tokens and SHA-256 of each; written last

The same sources and the same spec give the same bytes, on every machine and Python version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ftbridge.data.convert.formats import FieldChoice, SourcedExample, data_error, read_examples
from ftbridge.data.examples import ChatExample, Example, Message, PreferenceExample, ReinforcementExample
from ftbridge.data.manifest import Manifest, Split, SplitName, load_manifest
from ftbridge.data.replay import read_prompts
from ftbridge.data.tokens import count_texts, example_texts
from ftbridge.errors import DataError
from ftbridge.files import sha256_bytes, sha256_file, write_bytes, write_json, write_text
from ftbridge.spec import JobSpec

_NAMES: tuple[SplitName, ...] = ("train", "validation", "test", "replay")
_PAIRS_SHOWN = 10
_TWO_COMPLETIONS = (
    "Take them out of the replay prompts: a model cannot learn both the base model's completion and another one."
)
_Sourced = SourcedExample[Example]


def prepare(spec: JobSpec, *, base: Path, out: Path) -> Manifest:
    """Write the canonical dataset of `spec` into `out`; sources are relative to `base`, the spec's folder.

    Does nothing, and reads no source, when `out` already holds what this data section and seed asked for, unharmed.
    Raises `DataError` for bad lines, fewer than 2 training examples, a validation split that is empty, and test or
    validation examples whose prompt is also trained on; `UsageError` for sources that cannot be found, or hold examples of
    another method.
    """
    recipe = _recipe(spec)
    if standing := _standing(out, recipe):
        return standing
    splits = _read(spec, base)
    _refuse_overlap("test", splits["test"], splits["train"])
    _refuse_overlap("validation", splits["validation"], splits["train"])
    _refuse_overlap("replay", splits["replay"], splits["train"], hint=_TWO_COMPLETIONS)
    for name in ("test", "validation"):
        _refuse_overlap(name, splits[name], splits["replay"], "replayed")
    notes = _size_notes(splits["train"])
    if isinstance(spec.data.validation, float):
        splits |= _held_out(splits["train"], spec.data.validation, spec.seed)
    notes += _shared_notes(splits)
    return _write(splits, notes, recipe, out)


def origin(out: Path, split: str) -> list[str]:
    """For each line of a prepared split, the `file:line` it came from."""
    lines: dict[str, list[str]] = json.loads((out / "lines.json").read_bytes())
    return lines[split]


def hold_out(examples: Sequence[Example], fraction: float, seed: int) -> list[int]:
    """Indices (ascending) of the examples to hold out: `fraction` of them, rounded half up, at least 1.

    Rank: examples are taken in the order of SHA-256(seed, canonical line), so the choice depends neither on Python's
    random numbers nor on the order of the file. Copies: examples with the same messages and tools stay together.
    Strata: with 2 to 20 distinct answers (of preferences the preferred one; reinforcement items have none), each on at
    least 2 different examples, every answer gives its share by largest remainders (Hamilton's method) and keeps at least
    one example in training. Empty when nothing can be held out without splitting copies.
    """
    groups = _groups(examples, seed)
    wanted = max(1, int(len(examples) * fraction + 0.5))
    chosen = [group for stratum, share in _shares(groups, wanted, examples) for group in _take(stratum, share)]
    if not chosen and len(groups) > 1:
        chosen = [min(groups, key=len)]
    return sorted(index for group in chosen for index in group)


# Splitting

_Group = list[int]


def _groups(examples: Sequence[Example], seed: int) -> list[_Group]:
    """Indices of examples that are copies of each other, in the order of their rank."""
    members: dict[str, _Group] = {}
    for index, example in enumerate(examples):
        members.setdefault(_content(example), []).append(index)

    def rank(group: _Group) -> str:
        return min(sha256_bytes(f"{seed}\n{examples[index].canonical()}".encode()) for index in group)

    return sorted(members.values(), key=rank)


def _shares(groups: list[_Group], wanted: int, examples: Sequence[Example]) -> Iterator[tuple[list[_Group], int]]:
    """Each stratum and how many of its examples to hold out; one stratum where answers are not labels."""
    strata: dict[str, list[_Group]] = {}
    for group in groups:
        strata.setdefault(_answer(examples[group[0]]), []).append(group)
    if not (2 <= len(strata) <= 20 and all(len(stratum) >= 2 for stratum in strata.values())):
        yield groups, wanted
        return
    sizes = {label: sum(map(len, stratum)) for label, stratum in strata.items()}
    total = len(examples)
    shares = {label: wanted * size // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(wanted * sizes[label] % total), label))
    for label in by_remainder[: wanted - sum(shares.values())]:
        shares[label] += 1
    for label in sorted(strata):
        yield strata[label], shares[label]


def _take(stratum: list[_Group], share: int) -> Iterator[_Group]:
    """Groups in rank order that fit into `share`; at least one stays behind."""
    left = len(stratum)
    for group in stratum:
        if len(group) <= share and left > 1:
            share, left = share - len(group), left - 1
            yield group


def _held_out(train: list[_Sourced], fraction: float, seed: int) -> dict[SplitName, list[_Sourced]]:
    held = set(hold_out([item.example for item in train], fraction, seed))
    if not held:
        raise DataError(
            (
                f"data.validation {fraction}: all {len(train)} training examples are copies of one example; none can be "
                "held out."
            ),
            hint="Add different examples, or remove data.validation.",
        )
    if len(train) - len(held) < 2:
        raise DataError(
            f"data.validation {fraction}: holding out {len(held)} of {len(train)} examples leaves too few to train on.",
            hint="Add examples, or remove data.validation.",
        )
    return {
        "train": [item for index, item in enumerate(train) if index not in held],
        "validation": [item for index, item in enumerate(train) if index in held],
    }


# Reading and refusing


def _read(spec: JobSpec, base: Path) -> dict[SplitName, list[_Sourced]]:
    """Every split the spec names files for; the bad lines of all of them in one error."""
    sources: dict[SplitName, str | list[str] | None] = {"train": spec.data.train, "test": spec.data.test}
    sources["validation"] = spec.data.validation if isinstance(spec.data.validation, str) else None
    splits: dict[SplitName, list[_Sourced]] = {}
    problems: dict[SplitName, Sequence[str]] = {}
    for name in _NAMES:
        try:
            splits[name] = _read_split(name, sources.get(name), spec, base)
        except DataError as error:
            problems[name] = error.problems
    if problems:
        listed = [problem for some in problems.values() for problem in some]
        raise DataError(data_error(listed).message, problems=listed, split=next(iter(problems)))
    if len(splits["train"]) < 2:
        raise DataError(
            "1 example is too few to train on; OpenAI needs at least 10.",
            problems=[f"{splits['train'][0].origin} is the only training example."],
            split="train",
            too_few=True,
        )
    return splits


def _read_split(name: SplitName, source: str | list[str] | None, spec: JobSpec, base: Path) -> list[_Sourced]:
    if name == "replay":
        return [*read_prompts(spec.data.replay, base, spec.seed)] if spec.data.replay is not None else []
    if source is None:
        return []
    return read_examples(source, base=base, format=spec.data.format, method=spec.method, fields=_fields(name, spec))


def _fields(name: SplitName, spec: JobSpec) -> FieldChoice:
    """What to do with fields that examples do not have: those that graders read are kept, and all fields of test items."""
    graders = spec.model_dump_json(include={"grader", "evaluation"})
    words = tuple(sorted(set(re.findall(r"\w+", graders))))
    data = spec.data
    return FieldChoice(tuple(data.drop), (*data.keep, *words), tuple(data.map.items()), keep_item_fields=name == "test")


def _refuse_overlap(
    name: SplitName,
    examples: list[_Sourced],
    train: list[_Sourced],
    where: str = "in the training data",
    hint: str = "Remove them from one of the files: on examples that it was trained on, a model looks better than it is.",
) -> None:
    pairs = _overlap(examples, train)
    if not pairs:
        return
    problems: list[str] = []
    for item, other in pairs:
        same = _content(item.example) == _content(other.example)
        problems.append(f"{item.origin} {'is the same example as' if same else 'has the prompt of'} {other.origin}.")
    shown = [f"  {problem}" for problem in problems[:_PAIRS_SHOWN]]
    if len(problems) > _PAIRS_SHOWN:
        shown.append(f"  … and {len(problems) - _PAIRS_SHOWN:,} more")
    count = "1 example is" if len(pairs) == 1 else f"{len(pairs):,} examples are"
    raise DataError(
        "\n".join([f"data.{name}: {count} also {where}:", *shown]),
        problems=problems,
        split=name,
        hint=hint,
    )


def _overlap(examples: list[_Sourced], train: list[_Sourced]) -> list[tuple[_Sourced, _Sourced]]:
    """Examples whose prompt is trained on, each with the first training example that does."""
    training: dict[bytes, _Sourced] = {}
    for item in train if examples else []:
        for prompt in _trained_prompts(item.example):
            training.setdefault(prompt, item)
    prompts = [(item, _asked_prompt(item.example)) for item in examples]
    return [(item, training[prompt]) for item, prompt in prompts if prompt in training]


def _size_notes(train: list[_Sourced]) -> list[str]:
    notes: list[str] = []
    if len(train) < 10:
        notes.append(f"{len(train)} training examples: OpenAI refuses a file with fewer than 10.")
    elif len(train) < 50:
        notes.append(f"{len(train)} training examples: OpenAI sees clear improvements from 50 to 100.")
    if copies := len(train) - len({item.example.canonical() for item in train}):
        lines = "1 training line repeats" if copies == 1 else f"{copies:,} training lines repeat"
        notes.append(f"{lines} an earlier line; every copy is trained on.")
    return notes


def _shared_notes(splits: dict[SplitName, list[_Sourced]]) -> list[str]:
    notes: list[str] = []
    if shared := len(_overlap(splits["validation"], splits["train"])):
        total = len(splits["validation"])
        notes.append(f"{shared:,} of {total:,} validation examples have a prompt that is also trained on.")
    if shared := len(_overlap(splits["test"], splits["validation"])):
        total = len(splits["test"])
        notes.append(f"{shared:,} of {total:,} test examples have a prompt that is also in validation.")
    return notes


# What an example is, whatever its method


def _answer(example: Example) -> str:
    """The text that may be a label."""
    if isinstance(example, PreferenceExample):
        return example.preferred.text
    return "" if isinstance(example, ReinforcementExample) else example.completion.text


def _trained_prompts(example: Example) -> list[bytes]:
    """Digests of every prompt that an answer is trained for: all turns of a chat, the whole input of the others."""
    if isinstance(example, ChatExample):
        prompts = zip(example.messages, _prompts(example.messages), strict=True)
        return [prompt for message, prompt in prompts if message.has_loss]
    return [_asked_prompt(example)]


def _asked_prompt(example: Example) -> bytes:
    """The digest of the messages that an answer is wanted for."""
    if isinstance(example, ChatExample):
        return _prompts(example.messages)[-1]
    return _digests(example.prompt)[-1]


def _prompts(messages: Sequence[Message]) -> list[bytes]:
    """For each message a digest of those before it; of the message itself for the first, which has no prompt."""
    after = _digests(messages)
    return [after[0], *after[:-1]]


def _digests(messages: Sequence[Message]) -> list[bytes]:
    """For each message a digest of it and those before it."""
    digest = hashlib.sha256()
    after: list[bytes] = []
    for message in messages:
        digest.update(_meaning(message).encode() + b"\n")
        after.append(digest.digest())
    return after


def _meaning(message: Message) -> str:
    """A message's text for comparison: keys in one order, absent and null alike, and no weight."""
    return json.dumps(message.model_dump(mode="json", exclude={"weight"}, exclude_none=True), sort_keys=True)


def _content(example: Example) -> str:
    """What makes two examples copies: the same messages and tools, whatever their other fields."""
    return "\n".join([json.dumps(example.tools or [], sort_keys=True), *map(_meaning, _all_messages(example))])


def _all_messages(example: Example) -> list[Message]:
    if isinstance(example, PreferenceExample):
        return [*example.prompt, example.preferred, example.non_preferred]
    return example.messages


def _tokens(example: Example) -> int:
    """Tokens in `o200k_base`; a preference counts its input once and both answers."""
    document = example.model_dump(mode="json", exclude_unset=True)
    messages = document.get("messages", [])
    if isinstance(example, PreferenceExample):
        outputs = document["preferred_output"] + document["non_preferred_output"]
        document = document["input"]
        messages = document["messages"] + outputs
    fixed, texts = example_texts(messages, document)
    return fixed + sum(count_texts(texts))


# Writing


def _write(splits: dict[SplitName, list[_Sourced]], notes: list[str], recipe: str, out: Path) -> Manifest:
    """Write the splits, then the manifest: a folder without one, or with one that does not fit, is not prepared."""
    (out / "manifest.json").unlink(missing_ok=True)
    described: dict[SplitName, Split] = {}
    for name in _NAMES:
        path = out / f"{name}.jsonl"
        items = splits[name]
        if not items:
            path.unlink(missing_ok=True)
            continue
        content = "".join(f"{item.example.canonical()}\n" for item in items).encode()
        write_bytes(path, content)
        described[name] = Split(
            examples=len(items),
            tokens=sum(_tokens(item.example) for item in items),
            sha256=sha256_bytes(content),
            sources=list(dict.fromkeys(item.file for item in items)),
        )
    lines = {name: [item.origin for item in splits[name]] for name in described}
    text = json.dumps(lines, ensure_ascii=False, indent=0) + "\n"
    write_text(out / "lines.json", text)
    manifest = Manifest(splits=described, notes=notes, recipe=recipe, lines_sha256=sha256_bytes(text.encode()))
    write_json(out / "manifest.json", manifest.model_dump(mode="json"))
    return manifest


def _recipe(spec: JobSpec) -> str:
    """A name for what decides the bytes, beside the sources themselves: the data section, the seed and the method."""
    data = spec.data.model_dump(mode="json")
    for later in ("drop", "keep", "map"):  # a spec that does not use them has the name it had before there were any
        if not data[later]:
            del data[later]
    if data["replay"] is None:
        del data["replay"]
    settings = {"data": data, "seed": spec.seed}
    if spec.method != "supervised":
        settings["method"] = spec.method
    return sha256_bytes(json.dumps(settings, sort_keys=True).encode())


def _standing(out: Path, recipe: str) -> Manifest | None:
    """The manifest in `out`, if it is for this recipe and every file is as it says."""
    try:
        manifest = load_manifest(out)
        expected = {f"{name}.jsonl": split.sha256 for name, split in manifest.splits.items()}
        expected["lines.json"] = manifest.lines_sha256
        is_complete = all(sha256_file(out / name) == sha256 for name, sha256 in expected.items())
    except (DataError, OSError):
        return None
    return manifest if is_complete and manifest.recipe == recipe else None
