"""Every format that is known, in one table: its sample, who writes it, which reader takes it, and what tells it.

The table is behind `ftbridge convert --list-formats`, docs/convert.md, and the hints of `convert` and `lint`. A format is a
layout that a tool or vendor writes; a *shape* is the reader that `convert` has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ftbridge.data.field_names import BOOKKEEPING

Shape = Literal[
    "chat", "reinforcement", "preference", "prompt_completion", "alpaca", "sharegpt", "chosen_rejected", "kto",
    "stored_completion", "responses", "gemini", "function_text",
]  # fmt: skip
SHAPES: tuple[Shape, ...] = get_args(Shape)
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A layout of records. `shape` reads it; where that is None, `advice` is what to do instead.

    `sample` is one record, `source` who writes it so, and `matches` whether a record is of this format.
    """

    name: str
    shape: Shape | None
    sample: str
    source: str
    matches: Callable[[Document], bool]
    advice: str = ""


def format_of(record: Document) -> Format | None:
    """The first format of the table that a record is of."""
    return next((candidate for candidate in FORMATS if candidate.matches(record)), None)


def listed_formats() -> list[tuple[str, str, str, str]]:
    """Name, shape (or "not read"), sample and source of every format, for people."""
    return [(listed.name, listed.shape or "not read", listed.sample, listed.source) for listed in FORMATS]


def _messages(record: Document, *names: str) -> list[Any]:
    """The list under the first of these names that holds one."""
    for name in names:
        if isinstance(value := record.get(name), list) and value:
            return value
    return []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _last_role(record: Document) -> str:
    turns = _messages(record, "messages")
    return str(_dict(turns[-1]).get("role", "")).lower() if turns else ""


def _has(*names: str) -> Callable[[Document], bool]:
    return lambda record: all(name in record for name in names)


def has_messages(record: Document) -> bool:
    """Whether `messages` is a list, or the JSON text of one."""
    value = record.get("messages")
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def kto_field(record: Document) -> str | None:
    """The field that tells whether an answer was liked; None where there is none."""
    if _messages(record, "messages") and _last_role(record) in ("user", "human"):
        return None
    for name in KTO_FIELDS:
        if is_liked(record.get(name)) is not None:
            return name
    return None


def is_liked(value: object) -> bool | None:
    """Whether a label says that a completion was liked: true or 1, in any spelling; None for what is no such label."""
    if not isinstance(value, (bool, int, float, str)):
        return None
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(
        str(value).strip().lower()
    )


KTO_FIELDS = ("label", "kto_tag", "kto_label", "liked", "is_liked", "thumbs_up", "desirable", "is_desirable", "is_good")
_ANSWERS = ("messages", "completion", "conversations", "response", "output", "answer")
_PARTNERS = ("rejected", "rejected_response", "rejected_messages", "rejected_answer", "non_preferred_output")


def _kto(record: Document) -> bool:
    return bool(record.keys() & {*_ANSWERS}) and kto_field(record) is not None


def _chosen_rejected(record: Document) -> bool:
    if isinstance(record.get("completions"), list) and isinstance(record.get("contents"), list):
        return True
    return bool({"chosen", "rejected", "rejected_response", "rejected_messages"} & record.keys())


def _blocks(record: Document, *types: str) -> bool:
    for message in _messages(record, "messages"):
        for part in _messages(_dict(message), "content"):
            if _dict(part).get("type") in types or (not types and "type" not in _dict(part)):
                return True
    return False


def _request(record: Document) -> dict[str, Any]:
    for name in ("request", "body", "input", "request_body", "kwargs"):
        value = _dict(record.get(name))
        value = _dict(value.get("body")) or value
        if value.keys() & {"messages", "input", "contents"}:
            return value
    return {}


def _response(record: Document) -> dict[str, Any]:
    for name in ("response", "output", "response_body", "completion"):
        value = _dict(record.get(name))
        value = _dict(value.get("body")) or value
        if value.keys() & {"choices", "output", "candidates", "content"}:
            return value
    return {}


def _annotation_tool(record: Document) -> bool:
    return isinstance(record.get("annotations"), list) and isinstance(record.get("data"), dict)


def _pieces(record: Document) -> bool:
    return any(
        isinstance(_dict(one), dict) and {"label", "text"} <= _dict(one).keys() for one in _messages(record, "segments")
    )


def _columns(record: Document) -> bool:
    """Whether an object is a whole table, as pandas writes one unless it is to write records: columns, or rows by number."""
    values = list(record.values())
    if not values:
        return False
    if isinstance(record.get("columns"), list) and isinstance(record.get("data"), list):
        return all(isinstance(row, list) for row in record["data"])
    if all(isinstance(value, dict) and value for value in values):
        is_by_row = all(name.isdigit() for name in record)
        return is_by_row or all(all(name.isdigit() for name in value) for value in values)
    lengths = {len(value) if isinstance(value, list) else 0 for value in values}
    return len(values) > 1 and len(lengths) == 1 and 0 not in lengths and not any(map(_has_objects, values))


def _has_objects(elements: list[Any]) -> bool:
    return any(isinstance(element, (dict, list)) for element in elements)


FORMATS: tuple[Format, ...] = (
    Format(
        "a table in one object", None,
        '{"prompt": {"0": "Hi", "1": "Bye"}, "completion": {"0": "Hello", "1": "Goodbye"}}',
        "pandas, DataFrame.to_json() and to_dict()",
        _columns,
        "Write one record per line: DataFrame.to_json(path, orient='records', lines=True).",
    ),
    Format(
        "OpenAI stored completions", "stored_completion",
        '{"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Hello"}}], '
        '"messages": {"object": "list", "data": [{"role": "user", "content": "Hi"}]}}',
        "OpenAI's chat completions API: list and messages",
        lambda record: isinstance(record.get("choices"), list) and bool(record.keys() & {"messages", "request", "input"}),
    ),
    Format(
        "OpenAI batch input and output", "stored_completion",
        '{"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Hi"}]}}  and  {"custom_id": "1", '
        '"response": {"body": {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}}}',
        "OpenAI's batch guide; give both files: ftbridge convert input.jsonl output.jsonl train.jsonl",
        lambda record: "custom_id" in record and bool(record.keys() & {"body", "response"}),
    ),
    Format(
        "logged requests", "stored_completion",
        '{"request": {"messages": [{"role": "user", "content": "Hi"}]}, "response": {"choices": [{"message": '
        '{"role": "assistant", "content": "Hello"}}]}}',
        "Logs of gateways and proxies: a request body and the response body",
        lambda record: bool(_request(record)) and bool(_response(record)),
    ),
    Format(
        "OpenAI Responses items", "responses",
        '{"instructions": "Be brief.", "input": [{"role": "user", "content": "Hi"}], "output": [{"type": "message", '
        '"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}]}',
        "OpenAI's Responses API",
        lambda record: "input" in record and isinstance(record.get("output"), list)
        and any(isinstance(item, dict) and item.keys() & {"type", "role"} for item in record["output"]),
    ),
    Format(
        "OpenAI preference", "preference",
        '{"input": {"messages": [{"role": "user", "content": "Hi"}]}, "preferred_output": [{"role": "assistant", '
        '"content": "Hello"}], "non_preferred_output": [{"role": "assistant", "content": "What?"}]}',
        "OpenAI's guide on direct preference optimization",
        lambda record: "preferred_output" in record or "non_preferred_output" in record,
    ),
    Format(
        "Gemini", "gemini",
        '{"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": '
        '"Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]}',
        "Vertex AI, supervised tuning data for Gemini; with `completions` and scores its preference tuning",
        lambda record: isinstance(record.get("contents"), list),
    ),
    Format(
        "KTO: answers that were liked or not", "kto",
        '{"prompt": "Hi", "completion": "Go away.", "label": false}  (or messages with label, conversations with kto_tag)',
        "TRL, dataset formats: unpaired preference; LLaMA-Factory, KTO",
        _kto,
    ),
    Format(
        "Nectar rankings", None,
        '{"prompt": "Human: Hi Assistant:", "answers": [{"answer": "Hello", "rank": 1.0}, {"answer": "What?", "rank": 2.0}]}',
        "berkeley-nest/Nectar",
        lambda record: any("rank" in _dict(one) for one in _messages(record, "answers")),
        "Write a better and a worse answer of each ranking to `chosen` and `rejected`, and convert that.",
    ),
    Format(
        "UltraFeedback completions", None,
        '{"instruction": "Hi", "completions": [{"response": "Hello", "overall_score": 9.0}], "models": ["m"]}',
        "openbmb/UltraFeedback",
        lambda record: any("response" in _dict(one) for one in _messages(record, "completions")),
        "Use its binarized form with `chosen` and `rejected`, or write two of the completions to these fields.",
    ),
    Format(
        "preferences: chosen and rejected", "chosen_rejected",
        '{"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}  (text, messages, or HH-RLHF\'s "\\n\\nHuman: … '
        '\\n\\nAssistant: …")',
        "TRL, dataset formats; Anthropic's HH-RLHF; LLaMA-Factory; ms-swift (rejected_response)",
        _chosen_rejected,
    ),
    Format(
        "Label Studio export", None,
        '{"id": 1, "data": {"text": "Hi"}, "annotations": [{"result": [{"value": {"text": ["Hello"]}}]}]}',
        "Label Studio, JSON export",
        _annotation_tool,
        "Export it as CSV (or JSON-MIN) from Label Studio, and name its columns: "
        "ftbridge convert … --map prompt=… --map completion=….",
    ),
    Format(
        "Argilla records", None,
        '{"id": "1", "fields": {"prompt": "Hi"}, "responses": {"answer": [{"value": "Hello"}]}}',
        "Argilla, records.to_json()",
        lambda record: isinstance(record.get("fields"), dict) and bool(record.keys() & {"responses", "suggestions"}),
        "Write them with records.to_datasets(), save that as Parquet or CSV, and name its columns: ftbridge convert … --map.",
    ),
    Format(
        "promptfoo tests", None,
        '{"vars": {"question": "Hi"}, "assert": [{"type": "equals", "value": "Hello"}]}',
        "promptfoo, test cases",
        lambda record: isinstance(record.get("vars"), dict) and bool(record.keys() & {"assert", "response", "prompt"}),
        "Tests are not examples to learn; write the vars as a CSV with a prompt and a reference, and use it as data.test.",
    ),
    Format(
        "OpenAssistant trees", None,
        '{"message_tree_id": "1", "prompt": {"text": "Hi", "role": "prompter", "replies": [{"text": "Hello", '
        '"role": "assistant", "rank": 0}]}}',
        "OpenAssistant/oasst1 and oasst2",
        lambda record: "message_tree_id" in record,
        "A tree has many conversations: write one path of each (its replies of rank 0) as messages, and convert that.",
    ),
    Format(
        "Axolotl segments", None,
        '{"segments": [{"label": false, "text": "Hi"}, {"label": true, "text": "Hello"}]}',
        "Axolotl, template-free prompts (input_output)",
        _pieces,
        "Segments hold the text of a chat template; write the conversations as messages, with weight 0 or 1.",
    ),
    Format(
        "xLAM function calls", "function_text",
        '{"query": "Weather in Oslo?", "tools": "[{\\"name\\": \\"weather\\", …}]", "answers": "[{\\"name\\": '
        '\\"weather\\", \\"arguments\\": {\\"city\\": \\"Oslo\\"}}]"}',
        "Salesforce/xlam-function-calling-60k",
        _has("query", "tools", "answers"),
    ),
    Format(
        "Glaive function calling v2", "function_text",
        '{"system": "SYSTEM: You have functions - {…}", "chat": "USER: Hi\\n\\n\\nASSISTANT: Hello <|endoftext|>"}',
        "glaiveai/glaive-function-calling-v2",
        lambda record: isinstance(record.get("chat"), str) and "USER:" in record["chat"],
    ),
    Format(
        "chat, the answer last", "chat",
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "tools": […]}',
        "OpenAI's supervised guide; Anthropic and Bedrock (system, blocks), Cohere, TRL, Mistral; `train` flags of Axolotl",
        lambda record: has_messages(record) and _last_role(record) not in ("user", "human"),
    ),
    Format(
        "reinforcement: the question last", "reinforcement",
        '{"messages": [{"role": "user", "content": "2+2?"}], "reference": "4"}',
        "OpenAI's reinforcement guide",
        has_messages,
    ),
    Format(
        "ShareGPT", "sharegpt",
        '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "", "tools": "[]"}',
        "ShareGPT; LLaMA-Factory; Axolotl; function calls in Hermes tags",
        lambda record: bool(_messages(record, "conversations")) or isinstance(record.get("conversations"), (list, str)),
    ),
    Format(
        "Alpaca", "alpaca",
        '{"instruction": "Add.", "input": "1 2", "output": "3", "system": "", "history": [["Hi", "Hello"]]}',
        "Stanford Alpaca; LLaMA-Factory; Dolly (context: --map input=context)",
        _has("instruction"),
    ),
    Format(
        "prompt and completion", "prompt_completion",
        '{"prompt": "Hi", "completion": "Hello"}  (text, or lists of messages)',
        "OpenAI's former completions format; TRL, dataset formats",
        _has("prompt"),
    ),
    Format(
        "plain text", None,
        '{"text": "Once upon a time …"}',
        "Pretraining corpora",
        lambda record: isinstance(record.get("text"), str) and len(record.keys() - BOOKKEEPING) == 1,
        "Text alone has no completion to learn; write prompt and completion, or messages.",
    ),
)  # fmt: skip
"""Every format that is known, the particular before the general."""
