"""POST /chat/completions: its body, and what of it an engine can act on.

A setting that changes the answer is acted on or refused; one that cannot (whom to bill, what to cache) is read and let be.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from ftbridge.data.examples import Message
from ftbridge.providers.local.inference.requests import GenerationRequest
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.http.validation import Metadata, RequestBody
from ftbridge.server.requests.tool_choice import chosen_tools
from ftbridge.spec.problems import field_of, reason


class StreamOptions(RequestBody):
    """`include_usage` adds a last piece with the tokens used."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(RequestBody):
    """response_format.json_schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(RequestBody):
    """text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Prediction(RequestBody):
    """What much of the answer is expected to be; it would only make it faster."""

    type: Literal["content"]
    content: str | list[dict[str, Any]]


class CreateChat(RequestBody):
    """The body, every field of the published interface."""

    model: str = Field(min_length=1)
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None

    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    chat_template_kwargs: dict[str, Any] | None = None

    functions: list[dict[str, Any]] | None = Field(default=None, min_length=1, max_length=128)
    function_call: str | dict[str, Any] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None

    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = Field(default=None, max_length=64)
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    prediction: Prediction | None = None

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


EXTRAS = ("top_k", "min_p", "repetition_penalty", "chat_template_kwargs")
"""Fields that OpenAI's interface does not have: those of vLLM's and other local servers, with their meaning."""

_CANNOT: dict[str, tuple[Any, ...]] = {
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
    "moderation": (None,),
    "verbosity": (None, "medium"),
}
"""Settings that would change the answer and that nothing here acts on, with the values that change nothing."""


def to_ask(chat: CreateChat, name: str) -> GenerationRequest:
    """What the engine is asked. Raises `ApiError` 400 for what it could not do, and for messages that are none."""
    for field, neutral in _CANNOT.items():
        if getattr(chat, field) not in neutral:
            raise invalid(
                f"'{field}' is not supported here; leave it out, or set it to {neutral[-1]!r}.",
                field,
                "unsupported_parameter",
            )
    if len(chat.stops) > 4 or not all(chat.stops):
        raise invalid("'stop' takes 1 to 4 texts, none of them empty.", "stop", "invalid_value")
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise invalid(
            "'max_tokens' and 'max_completion_tokens' are the same limit; give one.", "max_tokens", "invalid_value"
        )
    if chat.stream_options is not None and not chat.stream:
        raise invalid("'stream_options' is for streams only.", "stream_options", "invalid_value")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs': true.", "top_logprobs", "invalid_value")
    shape = chat.response_format
    if (
        shape is not None
        and shape.type == "json_schema"
        and (shape.json_schema is None or not shape.json_schema.schema_)
    ):
        raise invalid(
            "'response_format.json_schema.schema' is missing.", "response_format", "missing_required_parameter"
        )
    chosen = chosen_tools(chat)
    return GenerationRequest(
        id=name,
        messages=_messages(chat.messages),
        tools=chosen.tools,
        must_call=chosen.must_call,
        parallel=chat.parallel_tool_calls is not False and chat.function_call is None,
        top_k=chat.top_k if chat.top_k and chat.top_k > 0 else None,
        min_p=chat.min_p or 0.0,
        repetition_penalty=chat.repetition_penalty or 1.0,
        presence_penalty=chat.presence_penalty or 0.0,
        frequency_penalty=chat.frequency_penalty or 0.0,
        logit_bias=biases(chat.logit_bias),
        template=chat.chat_template_kwargs or {},
        effort=chat.reasoning_effort,
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
        temperature=1.0 if chat.temperature is None else chat.temperature,
        top_p=chat.top_p or (1.0 if chat.top_p is None else 1e-6),
        seed=chat.seed,
        stop=chat.stops,
        n=chat.n or 1,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        json_schema=_schema(shape),
        lenient=shape is not None and not (shape.json_schema is not None and shape.json_schema.strict),
    )


def biases(biases_by_token: dict[str, float] | None) -> dict[int, float]:
    """`logit_bias` by token. Raises `ApiError` for keys that are not token ids, and outside -100 to 100."""
    parsed = {}
    for token, bias in (biases_by_token or {}).items():
        if not token.isascii() or not token.isdigit() or not -100 <= bias <= 100:
            raise invalid("'logit_bias' maps token ids to biases from -100 to 100.", "logit_bias", "invalid_value")
        parsed[int(token[:10])] = float(bias)
    return parsed


def _schema(shape: ResponseFormat | None) -> dict[str, Any] | None:
    if shape is None or shape.type == "text":
        return None
    if shape.type == "json_object" or shape.json_schema is None:
        return {"type": "object"}
    return shape.json_schema.schema_


_KEYS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls", "function_call", "audio"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    "function": frozenset({"role", "content", "name"}),
}


_REPLY = frozenset({"annotations", "reasoning_content", "reasoning", "thinking", "refusal", "audio", "prefix", "id"})
"""What services put into their replies beside the published fields of a request. A reply sent back is not refused for them."""


def _messages(documents: list[dict[str, Any]]) -> list[Message]:
    return [_checked(message, f"messages[{index}]") for index, message in enumerate(documents)]


def _checked(message: dict[str, Any], where: str) -> Message:
    """One message, without members that are null or empty lists: those say nothing, and replies are full of them."""
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEYS:
        raise invalid(f"'{where}.role' must be one of {', '.join(_KEYS)}.", f"{where}.role", "invalid_value")
    allowed = _KEYS[role] | _REPLY if role == "assistant" else _KEYS[role]
    if unknown := sorted(key for key in set(message) - allowed if message[key] not in (None, [], {})):
        path = f"{where}.{unknown[0]}"
        raise invalid(f"Unknown parameter: '{path}'.", path, "unknown_parameter")
    message = {
        key: value
        for key, value in message.items()
        if key in _KEYS[role] | REASONING and (value not in (None, [], {}) or key == "content")
    }
    if isinstance(message.get("audio"), dict):
        path = f"{where}.audio"
        raise invalid(f"'{path}' is not supported here: only text is generated.", path, "unsupported_parameter")
    if role == "assistant" and isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_without_null_id(call) for call in message["tool_calls"]]
    says = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
    if message.get("content") is None and not (role == "assistant" and says):
        path = f"{where}.content"
        raise invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")
    if role == "tool" and not message.get("tool_call_id"):
        path = f"{where}.tool_call_id"
        raise invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")
    return _message(message, where)


REASONING = frozenset({"reasoning_content"})
"""What of a reply's reasoning goes back to a template that wants it."""


def _without_null_id(call: Any) -> Any:
    """A call without `index`, which streamed pieces carry."""
    return {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call


def _message(document: dict[str, Any], where: str) -> Message:
    try:
        return Message.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _wrong(field_of(problem["loc"], where), reason(problem)) from None


def _wrong(path: str, message: str) -> ApiError:
    return invalid(f"'{path}' is not acceptable: {message[:1].lower()}{message[1:]}.", path, "invalid_value")
