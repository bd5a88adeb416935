"""A model's tokenizer and chat template without transformers and torch, for counting tokens in an instant.

    tokenizer.json ─▶ tokenizers      chat_template.jinja, tokenizer_config.json ─▶ jinja2
                          └────────────┬────────────┘
                               Renderer, as in training

It answers what `Renderer` asks of a tokenizer, and no more. The template's surroundings (sandbox, trimmed blocks, `tojson`,
`raise_exception`, `strftime_now`, loop controls, `{% generation %}`) are those of transformers' chat templates, as its
documentation describes them; a test holds the tokens of both against each other.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ftbridge import extras
from ftbridge.errors import ModelUnavailable

if TYPE_CHECKING:
    from jinja2.ext import Extension


class AddedToken(NamedTuple):
    """A token that was added to the vocabulary."""

    content: str
    special: bool


class LightTokenizer:
    """The tokenizer in a model's folder.

    Raises `MissingDependency` without the libraries, `ModelUnavailable` without the files.
    """

    is_fast = True

    def __init__(self, folder: Path) -> None:
        tokenizers = extras.load("local", "counting a local model's tokens", "tokenizers")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        except Exception as error:  # tokenizers raises bare exceptions
            raise ModelUnavailable(f"the tokenizer in {folder} cannot be read: {error}.") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.name_or_path = str(folder)
        self.chat_template = self._template(folder)

    def __call__(
        self, text: str | Sequence[str], add_special_tokens: bool = False, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """Ids, and the characters that each token covers, of one text or several."""
        texts = [text] if isinstance(text, str) else list(text)
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        encoding: dict[str, list[Any]] = {"input_ids": [one.ids for one in encoded]}
        if return_offsets_mapping:
            encoding["offset_mapping"] = [one.offsets for one in encoded]
        return {name: values[0] for name, values in encoding.items()} if isinstance(text, str) else dict(encoding)

    def apply_chat_template(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] | None,
        tokenize: bool,
        add_generation_prompt: bool,
        **switches: Any,
    ) -> str:
        """The template's text; `tokenize` is for the shape of the call alone. Raises what the template raises.

        `switches` are variables of the template, such as `enable_thinking`.
        """
        named = self._compiled
        chosen = named.get("tool_use" if tools and "tool_use" in named else "default") or next(iter(named.values()))
        text: str = chosen.render(
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{**self._tokens, **switches},
        )
        return text

    @property
    def eos_token(self) -> str | None:
        """The text that ends a sequence."""
        return self._tokens.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Its id."""
        return self._id(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        """The id of the padding token."""
        return self._id(self._tokens.get("pad_token"))

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Added tokens by id."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {int(number): AddedToken(token.content, token.special) for number, token in added.items()}

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts that the tokenizer's settings call special."""
        more = self._config.get("additional_special_tokens") or []
        return list(dict.fromkeys([*self._tokens.values(), *(_text(token) for token in more)]))

    @property
    def all_special_ids(self) -> list[int]:
        """Their ids."""
        return [number for token in self.all_special_tokens if (number := self._id(token)) is not None]

    @cached_property
    def _tokens(self) -> dict[str, str]:
        names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        return {name: _text(self._config[name]) for name in names if self._config.get(name) is not None}

    def _id(self, token: str | None) -> int | None:
        number: int | None = None if token is None else self._tokenizer.token_to_id(token)
        return number

    def _template(self, folder: Path) -> Any:
        file = folder / "chat_template.jinja"
        if file.exists():
            return file.read_text("utf-8")
        configured = self._config.get("chat_template")
        return {part["name"]: part["template"] for part in configured} if isinstance(configured, list) else configured

    @cached_property
    def _compiled(self) -> dict[str, Any]:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation_tag()]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = self._raise
        environment.globals["strftime_now"] = lambda shape: datetime.datetime.now().strftime(shape)
        templates = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        return {name: environment.from_string(text) for name, text in templates.items()}

    def _raise(self, message: str) -> None:
        from jinja2 import TemplateError

        raise TemplateError(message)


def _text(token: Any) -> str:
    """A token as settings hold it: text, or an object with its content."""
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _generation_tag() -> type[Extension]:
    """`{% generation %}…{% endgeneration %}`: marks an answer in a template, and writes what stands in it."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return GenerationTag
