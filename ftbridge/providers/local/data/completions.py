"""Completions as tokens: what ends them, and their text, reasoning and calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ftbridge.data.notation import Notation, Reply, read_reply
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.data.thinking import ThinkingModes
from ftbridge.providers.local.data.tokens import CutTokenizer


class CompletionReader:
    """Reads the completions of one chat template.

    `end_of_turn` holds the tokens that stop generation, `stop_strings` the texts. Raises `RenderError` where nothing can end
    a completion.
    """

    def __init__(self, modes: ThinkingModes, tokens: CutTokenizer) -> None:
        self.modes, self.tokens, self.tokenizer = modes, tokens, modes.tokenizer
        self._within: frozenset[int] = frozenset()
        self._all_ends = self._find_ends()

    def read(self, prompt: Sequence[int], new: Sequence[int], tools: Sequence[dict[str, Any]] | None = None) -> Reply:
        """A completion's text, reasoning and calls. `new` may go on behind the end of the turn; `prompt` is what it answers."""
        text = self.text_of(new, prompt)
        return read_reply(text, self.modes.template.notation, self.opens_reasoning(prompt), tools)

    def text_of(self, new: Sequence[int], prompt: Sequence[int] = ()) -> str:
        """A completion's text up to its end, with the special tokens of the template's notation and no others."""
        end = self.end_of(new, prompt)
        hidden = self.hidden(self.modes.template.notation)
        shown = [token for token in (new if end is None else new[:end]) if token not in hidden]
        text: str = self.tokenizer.decode(shown, skip_special_tokens=False)
        places = [start for string in self.stop_strings if (start := text.find(string)) >= 0]
        return text[: min(places)] if places else text

    def hidden(self, notation: Notation) -> frozenset[int]:
        """The special tokens that are not part of a completion's text: all but the marks of its notation."""
        marks = notation.marks
        return frozenset(
            token for token, text in self.modes.template.special.items() if not any(text in mark for mark in marks)
        )

    def end_of(self, new: Sequence[int], prompt: Sequence[int] = ()) -> int | None:
        """The place of the token that ends a completion; None while it goes on. `prompt` is what it answers, where known."""
        ends = self.ends_after(prompt)
        return next((index for index, token in enumerate(new) if token in ends), None)

    def ends_after(self, prompt: Sequence[int]) -> frozenset[int]:
        """Tokens that stop generation after this prompt.

        Where a completion may be several messages with channels, what ends one that is not the last stops nothing.
        """
        if not prompt or not self.modes.template.notation.channels:
            return self.end_of_turn
        return self.ends_behind(self.tokenizer.decode(list(prompt[-1:]), skip_special_tokens=False))

    def ends_behind(self, prompt: str) -> frozenset[int]:
        """Tokens that stop generation after this text of a prompt."""
        several = self.modes.template.notation.channels and not prompt.rstrip().endswith("<|message|>")
        return self.end_of_turn - self._after_reasoning if several else self.end_of_turn

    def stops(self, new: Sequence[int]) -> bool:
        """Whether a text that ends an answer stands in these tokens."""
        if not self.stop_strings:
            return False
        text: str = self.tokenizer.decode(list(new), skip_special_tokens=False)
        return any(string in text for string in self.stop_strings)

    def opens_reasoning(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends within a block of reasoning."""
        tail: str = self.tokenizer.decode(list(prompt[-24:]), skip_special_tokens=False)
        return self.modes.template.opens_reasoning(tail)

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer and are not a single token."""
        return tuple(text for text in self.modes.ends.strings if len(self.tokens.ids(text)) > 1)

    @property
    def end_text(self) -> str:
        """What the template writes after an assistant's last answer, without the white space that follows it."""
        return self.modes.ends.text or self.modes.ends.eos or ""

    @property
    def end_of_turn(self) -> frozenset[int]:
        """Tokens that stop generation.

        What ends the reasoning of a completion does not, where completions have reasoning, nor what was seen within an answer.
        """
        ends = self._all_ends - self._within
        if self.modes.thinking == "off" or not (self.modes.thinking == "on" or self.modes.saw_reasoning):
            return ends
        return ends - self._after_reasoning

    def look_within(self, completion: str) -> None:
        """Find ends that stand within an answer, before more of its text: they end a part of it."""
        special = self.modes.template.special
        for token in self._all_ends & set(special):
            rest = completion.partition(special[token])[2]
            for text in special.values() if rest else ():
                rest = rest.replace(text, "")
            if any(map(str.isalnum, rest)):
                self._within |= {token}

    @cached_property
    def _after_reasoning(self) -> frozenset[int]:
        template = self.modes.of(True)[0]
        return frozenset(n for n, token in template.special.items() if token and token in template.after_reasoning)

    def _find_ends(self) -> frozenset[int]:
        """Tokens that end an assistant's turn: all that the template writes, and the model's ends of sequence."""
        ends = self.modes.ends
        special_ids = {text: number for number, text in self.modes.template.special.items()}
        ids = {special_ids[token] for token in ends.tokens if token in special_ids}
        written = self.tokens.ids(ends.text)
        if not any(token in special_ids for token in (ends.text, *ends.tokens)) or (ends.text and not ids):
            ids |= set(written) if len(written) == 1 else set()
        if ends.text and not ends.text.strip():
            ids |= set(written) if len(written) == 1 else set()
            self.modes.note(
                "in this chat template only white space ends a completion, so completions stop at the first white space"
            )
        elif self.stop_strings:
            self.modes.note(
                f"no single token ends a completion in this chat template ({ends.text!r}); in other programs "
                "completions may not stop"
            )
        if not ends.text and not ends.eos:
            raise RenderError(
                "cannot be trained on: neither this model's chat template nor its tokenizer ends a completion"
            )
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        return frozenset(ids | self.modes.listed)
