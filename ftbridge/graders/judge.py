"""OpenAI's model graders: `score_model` asks a model for a number, `label_model` for a label.

The judge is asked to reply with {"steps": [{"description", "conclusion"}], "result"}, as OpenAI's graders are; an instruction
that says so is put at the end of the system message, or before the others where there is none. Prompt, seed and raw reply
are kept in the result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftbridge.graders.calls import Calls
from ftbridge.graders.chat import JudgeFailed, endpoint
from ftbridge.graders.replies import UnreadableReply, label, number, read_result, short
from ftbridge.graders.result import ErrorName, JudgeCall, Outcome
from ftbridge.graders.template import GraderError, render
from ftbridge.spec.graders import JudgeMessage, JudgeSampling, LabelModelGrader, ScoreModelGrader

_ModelGrader = ScoreModelGrader | LabelModelGrader


def grade_score(
    grader: ScoreModelGrader, item: Mapping[str, Any], sample: Mapping[str, Any], calls: Calls | None = None
) -> Outcome:
    """The judge's number, clipped to the range; a reply without a number is an error, with reward 0 as OpenAI documents.

    model_grader_server_error     the endpoint failed, after retries
    model_grader_refusal_error    the judge refused
    model_grader_parse_error      the reply contains no finite number as its result (`ftbridge.graders.replies`)

    `calls` holds the questions that were asked before, and takes new ones.
    """
    low, high = grader.range
    instruction = f"result is the score: a number from {low:g} to {high:g}."

    def read(result: Any) -> tuple[float, dict[str, Any]]:
        score = number(result, low, high)
        clipped = min(high, max(low, score))
        return clipped, {} if clipped == score else {"clipped_from": score}

    return _judge(grader, item, sample, instruction, {"type": "number"}, read, calls or Calls())


def grade_label(
    grader: LabelModelGrader, item: Mapping[str, Any], sample: Mapping[str, Any], calls: Calls | None = None
) -> Outcome:
    """1 when the judge chooses a passing label, else 0. Errors as for `grade_score`; a label that is none is one."""
    labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in grader.labels)
    instruction = f"result is exactly one of these labels: {labels}."

    def read(result: Any) -> tuple[float, dict[str, Any]]:
        chosen = label(result, grader.labels)
        return float(chosen in grader.passing_labels), {"label": chosen}

    shape = {"type": "string", "enum": list(grader.labels)}
    return _judge(grader, item, sample, instruction, shape, read, calls or Calls())


def check(grader: _ModelGrader) -> None:
    """Raise `GraderError` when the judge is OpenAI's and there is no key."""
    if grader.base_url is None and not os.environ.get("OPENAI_BASE_URL") and endpoint(None).key is None:
        raise GraderError(
            f"grader {grader.name} asks {grader.model} at OpenAI, and OPENAI_API_KEY is not set.",
            hint="Set it, or name another endpoint with base_url or OPENAI_BASE_URL.",
        )


def templates(messages: Sequence[JudgeMessage]) -> list[str]:
    """Every template of a judge's prompt."""
    return [part for message in messages for part in _parts(message)]


def _judge(
    grader: _ModelGrader,
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    instruction: str,
    result_schema: dict[str, Any],
    read: Callable[[Any], tuple[float, dict[str, Any]]],
    calls: Calls,
) -> Outcome:
    messages = [
        {
            "role": message.role,
            "content": "".join(render(part, item, sample, grader=grader.name) for part in _parts(message)),
        }
        for message in grader.input
    ]
    messages = _with_instruction(messages, instruction)
    sampling = grader.sampling_params or JudgeSampling()
    where = endpoint(grader.base_url)
    call = JudgeCall(model=grader.model, endpoint=where.base_url, messages=messages, seed=sampling.seed)
    body = _body(grader.model, messages, sampling, result_schema)
    try:
        reply = calls.ask(where, body, grader.timeout_seconds)
    except JudgeFailed as error:
        return _wrong("model_grader_server_error", str(error), call)
    text = reply.refusal if reply.refusal is not None and not reply.text else reply.text
    metadata = {
        "reply": text,
        "sampled_model_name": reply.model,
        "tokens": reply.tokens,
        "finish_reason": reply.finish_reason,
    }
    call = call.model_copy(update=metadata)
    try:
        if reply.refusal is not None:
            raise JudgeRefused(short(reply.refusal))
        reward, details = read(read_result(reply.text or "", reply.finish_reason))
    except (JudgeRefused, UnreadableReply) as error:
        calls.unreadable(where, body, str(error))
        refused = isinstance(error, JudgeRefused)
        return _wrong("model_grader_refusal_error" if refused else "model_grader_parse_error", str(error), call)
    return Outcome(reward, details=details, calls=(call,))


class JudgeRefused(Exception):
    """The judge, or the service's filter, would not judge this answer."""


def _wrong(error: ErrorName, text: str, call: JudgeCall) -> Outcome:
    return Outcome(0.0, errors={error: text}, calls=(call,))


def _parts(message: JudgeMessage) -> list[str]:
    content = message.content if isinstance(message.content, list) else [message.content]
    return [part if isinstance(part, str) else part.text for part in content]


def _with_instruction(messages: list[dict[str, str]], instruction: str) -> list[dict[str, str]]:
    text = (
        'Reply with one JSON object and nothing else: {"steps": [{"description": "...", "conclusion": "..."}], '
        f'"result": ...}}. steps are your reasoning, in order; {instruction}'
    )
    if messages[0]["role"] in ("system", "developer"):
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _body(
    model: str, messages: list[dict[str, str]], sampling: JudgeSampling, result: dict[str, Any]
) -> dict[str, Any]:
    step = {"description": {"type": "string"}, "conclusion": {"type": "string"}}
    properties = {"steps": {"type": "array", "items": _closed(step)}, "result": result}
    parameters = sampling.model_dump(exclude_none=True)
    if "max_completions_tokens" in parameters:
        # The grader object spells it with an s; the endpoint does not.
        parameters["max_completion_tokens"] = parameters.pop("max_completions_tokens")
    shape = {"name": "grade", "strict": True, "schema": _closed(properties)}
    return {
        "model": model,
        "messages": messages,
        **parameters,
        "response_format": {"type": "json_schema", "json_schema": shape},
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
