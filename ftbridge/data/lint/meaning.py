"""What a key that examples do not have may mean, and so what a repair may do with it.

A repair removes a key only where nothing can be lost: it is empty, or it keeps count of the data (an id, a date, where a
line came from). A key that other formats define is moved to where examples hold it, if that says the same. Whatever else
stands there is left to a person, because nobody knows what made somebody write it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ftbridge.data.field_names import is_bookkeeping, meaning_of, plain_name
from ftbridge.data.lint.rule import JSON, Repair
from ftbridge.data.lint.structure import dropped

_COUNTS = frozenset(
    "ids rowid row sha256 sourcefile sourceurl filename datasetname version revision license licence annotator ntokens "  # noqa: SIM905
    "numtokens tokencount numturns nturns indexlevel0 finishreason stopreason systemfingerprint servicetier updated "
    "updatedat createtime updatetime linenumber convid msgid".split()
)
"""More names that keep count of data, as `plain_name` writes them."""

_RECORDS = frozenset({"cache_control", "logprobs", "usage"})
"""Keys in which services note how an answer was made, whatever they hold."""

SYSTEM_PROMPTS = ("system", "system_prompt", "system_message")
"""Keys beside messages in which other formats have the system message (Anthropic, Bedrock, ms-swift)."""

TRAIN_FLAGS = ("train", "trainable", "loss", "loss_weight")
"""Keys of a message by which other trainers say whether it is learnt (Axolotl, ms-swift): OpenAI's `weight`."""

_ELSEWHERE = {
    "images": "images belong in the user's message, as image_url parts",
    "image": "an image belongs in the user's message, as an image_url part",
    "videos": "fine-tuning reads no videos",
    "audios": "fine-tuning reads no audio",
    "label": "it may mark completions as good or bad, which a chat example cannot say",
    "kto_tag": "it marks completions as good or bad, which a chat example cannot say",
    "rejected_response": "it is the worse of two completions, which method dpo reads as non_preferred_output",
    "rejected": "it is the worse of two completions, which method dpo reads as non_preferred_output",
    "chosen": "it is the better of two completions, which method dpo reads as preferred_output",
    "documents": "what the model should read belongs in a message",
    "context": "what the model should read belongs in a message",
    "reasoning_content": "what the model should learn belongs in content",
    "reasoning": "what the model should learn belongs in content",
    "thinking": "what the model should learn belongs in content",
    "completion": "what the model should learn belongs in an assistant message",
    "response": "what the model should learn belongs in an assistant message",
    "answer": "what the model should learn belongs in an assistant message",
    "segments": "weight says which messages are learnt, for complete messages only",
}
"""What keys of other formats say, and where that belongs."""


class KeyAdvice(NamedTuple):
    """What to do about a key that has no place: a sentence, and the repair that does it where that is safe."""

    hint: str
    repair: Repair | None = None


def empty(value: JSON) -> bool:
    """Whether a key with this value says no more than no key: null, or a text, list or object with nothing in it."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def keeps_count(key: str, value: JSON) -> bool:
    """Whether a key only keeps count of the data, so that nothing a model learns goes with it."""
    if key.strip().lower() in _RECORDS:
        return True
    counts = is_bookkeeping(key) or plain_name(key) in _COUNTS
    return counts and (are_tags(value) if isinstance(value, dict) else _is_mark(value))


def are_tags(value: dict[str, JSON]) -> bool:
    """Whether an object holds marks alone (numbers, dates, names), under no key that means something to a model."""
    for key, item in value.items():
        if key in SYSTEM_PROMPTS or key in TRAIN_FLAGS or key in _ELSEWHERE or meaning_of(key):
            return False
        if not (are_tags(item) if isinstance(item, dict) else _is_mark(item)):
            return False
    return True


def _is_mark(value: JSON) -> bool:
    """Whether a value is a number, a date, an id or a name, rather than a text that somebody might learn from."""
    if isinstance(value, list):
        return all(_is_mark(item) for item in value)
    if isinstance(value, str):
        return len(value) <= 64 and (not any(map(str.isspace, value)) or any(map(str.isdigit, value)))
    return not isinstance(value, dict)


def stray(holder: dict[str, JSON], key: str) -> KeyAdvice:
    """What to do about a key that examples do not have, and that no other rule knows."""
    value = holder[key]
    if empty(value) or keeps_count(key, value):
        return KeyAdvice("Remove it.", dropped(holder, key))
    return KeyAdvice(f"Remove it only if nothing is lost: {_why(key)}.")


def _why(key: str) -> str:
    return _ELSEWHERE.get(key.strip().lower(), "what it says is not learnt there")


def system_beside(holder: dict[str, JSON], key: str) -> KeyAdvice:
    """A system prompt beside messages: it becomes the first message, unless there is another."""
    content = _system_content(holder[key])
    messages = holder.get("messages")
    if content is None or not isinstance(messages, list):
        return KeyAdvice("Make it the first message, with the role system.")
    others = [one for one in messages if isinstance(one, dict) and one.get("role") in ("system", "developer")]
    if not others:
        return KeyAdvice(
            "Make it the first message.", Repair(f"moved {key} into messages", _into(holder, key, content))
        )
    if len(others) == 1 and others[0] is messages[0] and others[0].get("content") == content:
        return KeyAdvice("The first message says the same. Remove it.", dropped(holder, key))
    return KeyAdvice("The messages have another system message. Keep one of them, or join them.")


def _system_content(value: JSON) -> JSON:
    """The content of a system message; None for what is neither text nor text parts."""
    if isinstance(value, str):
        return value if value.strip() else None
    if not isinstance(value, list) or not value:
        return None
    texts = []
    for part in value:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            return None
        if not part.keys() <= {"type", "text", "cache_control"} or part.get("type", "text") != "text":
            return None
        texts.append({"type": "text", "text": part["text"]})
    return texts


def _into(holder: dict[str, JSON], key: str, content: JSON) -> Callable[[], None]:
    def apply() -> None:
        del holder[key]
        holder["messages"].insert(0, {"role": "system", "content": content})

    return apply


def train_flag(message: dict[str, JSON], key: str, *, assistant: bool) -> KeyAdvice:
    """A flag that says whether a message is learnt: the assistant's weight; of others, nothing is learnt anyway."""
    value = message[key]
    weight = int(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None
    if weight is None:
        return KeyAdvice("Use weight to say whether the message is learnt: 0 or 1.")
    if not assistant:
        if weight:
            return KeyAdvice("Only assistant messages are learnt. Remove it, if that is intended.")
        return KeyAdvice("Only assistant messages are learnt. Remove it.", dropped(message, key))
    present = message.get("weight")
    if present is None:
        return KeyAdvice(
            f"Write weight {weight}.", Repair(f"wrote weight {weight} for {key}", _as_weight(message, key, weight))
        )
    if type(present) is int and present == weight:
        return KeyAdvice("weight says the same. Remove it.", dropped(message, key))
    return KeyAdvice("weight says something else. Keep one of them.")


def _as_weight(message: dict[str, JSON], key: str, weight: int) -> Callable[[], None]:
    def apply() -> None:
        pairs = [
            ("weight", weight) if name == key else (name, value) for name, value in message.items() if name != "weight"
        ]
        message.clear()
        message.update(pairs)

    return apply
