"""One chat template with reasoning and without it, and which of the two an example or a prompt is rendered with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ftbridge.data.examples import Message
from ftbridge.data.notation import reasoning_of
from ftbridge.providers.local.data.ends import Ends
from ftbridge.providers.local.data.spans import Spans
from ftbridge.providers.local.data.template import ChatTemplate

Thinking = Literal["auto", "on", "off"]


class ThinkingModes:
    """The two ways in which a tokenizer's chat template renders, each made when it is first asked for.

    Args:
        tokenizer: A fast tokenizer, or a `LightTokenizer`.
        thinking: Whether prompts ask for reasoning, and reasoning in the data is trained. "auto": as each example has it; once
            an example with reasoning was rendered (`saw_reasoning`), prompts ask for reasoning too.

    `notes` holds where the template needed help; `listed` the ends of sequence that the model's generation_config.json lists.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking) -> None:
        self.tokenizer = tokenizer
        self.thinking: Thinking = thinking
        self.notes: list[str] = []
        self.saw_reasoning = False
        self.listed = _listed_ends(tokenizer)
        self._made: dict[bool, tuple[ChatTemplate, Spans]] = {}

    def of(self, thinking: bool) -> tuple[ChatTemplate, Spans]:
        """The template with reasoning or without it, and where it writes answers."""
        if thinking not in self._made:
            template = ChatTemplate(self.tokenizer, thinking, self.notes)
            names = {token for number, token in template.special.items() if number in self.listed}
            eos = str(self.tokenizer.eos_token) if self.tokenizer.eos_token else None
            self._made[thinking] = template, Spans(template, Ends(template, eos, names))
        return self._made[thinking]

    @property
    def template(self) -> ChatTemplate:
        """The template as prompts are rendered before any example was seen."""
        return self.of(self.thinking == "on")[0]

    @property
    def spans(self) -> Spans:
        """Where that template writes answers."""
        return self.of(self.thinking == "on")[1]

    @property
    def ends(self) -> Ends:
        """What that template ends answers with."""
        return self.spans.ends

    def thinks(self, messages: Sequence[Message]) -> bool:
        """Whether an example is rendered with reasoning."""
        if self.thinking != "auto":
            return self.thinking == "on" and self.of(True)[0].can_reason
        if not any(reasoning_of(message) for message in messages if message.has_loss):
            return False
        template, _ = self.of(True)
        return template.can_reason and (template.reasoning_key is not None or template.writes_inline_reasoning)

    def thinks_in_prompts(self) -> bool:
        """Whether prompts ask for reasoning, where a caller does not choose."""
        asks = self.thinking == "on" or (self.thinking == "auto" and self.saw_reasoning)
        return asks and self.of(True)[0].can_reason

    @property
    def reasons(self) -> bool:
        """Whether the template knows reasoning: its marks, its channels, or a variable that switches it."""
        template = self.template
        switched = self.of(True)[0].generation_prompt != self.of(False)[0].generation_prompt
        return template.names_reasoning or template.notation.channels or switched

    @property
    def takes_effort(self) -> bool:
        """Whether the template has a variable for how much to reason, as gpt-oss's has."""
        return "reasoning_effort" in self.template.source

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)

    def note_lost_reasoning(self, messages: Sequence[Message], text: str, template: ChatTemplate) -> None:
        """Note that reasoning of the messages is not in the text that the template wrote, and why."""
        thoughts = [reasoning_of(message) for message in messages if message.has_loss]
        if not any(thought and thought.strip() not in text for thought in thoughts):
            return
        if template.thinking:
            self.note(
                "this chat template leaves out the reasoning of some completions; that reasoning is not trained on"
            )
        elif self.thinking == "off":
            self.note("reasoning in the data is not trained on: local.thinking is off")
        else:
            self.note(
                "reasoning in the data is not trained on: this chat template leaves out the reasoning of "
                "completions, or puts an empty block of it in the prompt"
            )


def _listed_ends(tokenizer: Any) -> frozenset[int]:
    """The ends of sequence that the model's generation_config.json lists, beside its tokenizer's own."""
    file = Path(str(getattr(tokenizer, "name_or_path", "") or "")) / "generation_config.json"
    try:
        listed = json.loads(file.read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return frozenset()
    numbers = listed if isinstance(listed, list) else [listed]
    return frozenset(number for number in numbers if isinstance(number, int) and not isinstance(number, bool))
