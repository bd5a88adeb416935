"""Forms with marks of one family: DeepSeek, Kimi, Functionary, Command R, Apertus."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ftbridge.data.call_forms.calls import Call, NotACall, Tools, calls_in, documents_in, whole_json

_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function)?(?:<｜tool▁sep｜>)?([^\n<]+?)(?:\n```(?:json)?\n|<｜tool▁sep｜>)(.*?)"
    r"(?:\n```)?\s*(?:<｜tool▁call▁end｜>|$)",
    re.DOTALL,
)
_KIMI = re.compile(
    r"<\|tool_call_begin\|>\s*([^<]+?)\s*<\|tool_call_argument_begin\|>(.*?)(?:<\|tool_call_end\|>|$)", re.DOTALL
)


def deepseek(text: str, tools: Tools) -> list[Call]:
    calls = [Call(name.strip(), whole_json(body)) for name, body in _DEEPSEEK.findall(text)]
    if not calls:
        raise NotACall
    return calls


def kimi(text: str, tools: Tools) -> list[Call]:
    calls = []
    for name, body in _KIMI.findall(text):
        bare = re.sub(r":\d+$", "", name.removeprefix("functions."))
        calls.append(Call(bare, whole_json(body), name))
    if not calls:
        raise NotACall
    return calls


def functionary(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """`>>>name⏎{…}` for each call; `all` is the text. The prompt ends with the first `>>>`."""
    calls, texts = [], []
    for part in (text if text.lstrip().startswith(">>>") else ">>>" + text).split(">>>")[1:]:
        name, _, body = part.partition("\n")
        if name.strip() == "all":
            texts.append(body)
        elif re.fullmatch(r"[\w.\-]+", name.strip()) and body.strip()[:1] == "{":
            calls.append(Call(name.strip(), whole_json(body)))
        else:
            raise NotACall
    return "".join(texts), calls


# Python


def cohere(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """Command R writes `Action: ```json [...]````; its `directly_answer` is not a tool."""
    match = re.search(r"Action:\s*```json\s*(.*?)\s*```", text, re.DOTALL)
    if not match:
        raise NotACall
    calls = [call for call in calls_in(match[1]) if call.name not in ("directly_answer", "directly-answer")]
    return text[: match.start()], calls


def apertus(text: str) -> list[Call]:
    """A list of objects with one key, the tool's name: `[{"look_up": {"city": "Lima"}}]`."""
    calls = []
    for document in documents_in(text):
        for one in document if isinstance(document, list) else [document]:
            if not isinstance(one, Mapping) or len(one) != 1:
                raise NotACall
            ((name, arguments),) = one.items()
            calls.append(Call(str(name), arguments))
    return calls
