"""What an answer that is not a success means: transient, final, or neither. One table, read from top to bottom.

    lost       no answer, or one that says nothing of what was done
    foreign    an answer that is not the service's own: a firewall, a proxy, a captive portal, a redirect
    later      too many requests: nothing was done, wait and ask again
    tomorrow   the day's jobs are used up: nothing was done, and asking again within minutes does not help
    not_ready  the file is not there for jobs yet: nothing was done, wait and ask again
    missing    404
    data       the service finds the data bad: nothing was done
    refused    any other answer: nothing was done, and asking again cannot help

`lost` and `foreign` leave a creation in doubt: it may have taken effect. `docs/paid-once.md` is made from `RULES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lost", "foreign", "later", "tomorrow", "not_ready", "missing", "data", "unsafe", "refused"]

CREATE, READ, ANY = "create a job", "anything but a creation", "any"
UNPAID = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "exceeded_quota"})
CLOSED = frozenset({"training_not_available", "fine_tuning_not_available"})
DATA_CODES = frozenset(
    {"invalid_training_file", "invalid_validation_file", "invalid_file_format", "invalid_n_examples"}
)
_DAILY = r"maximum of \d+ .*per day|requests? per day|daily (?:job )?limit"
_NOT_READY = r"not (?:yet )?ready|still (?:being )?process|pending processing|not (?:been )?(?:fully )?processed"
_NO_FILE = (
    r"(?:cannot|can't|could not|couldn't) find (?:the )?file|no such file|file\S* (?:\S+ )?(?:does not|doesn't) exist|file\S* (?:\S+ )?(?:was )?not found"
    r"|completed file import"
)
_UNSAFE = (
    r"moderat|unsafe|safety|content[ _]policy|usage polic|polic(?:y|ies) violation|violat\w+ .{0,30}polic|flagged|"
    r"harmful|disallowed content|responsible[ _]ai"
)
_MALFORMED = r"\b(?:example|line|row) #?\d+\b"

_GUIDE = "OpenAI, error codes guide"
_HTTP = "RFC 9110"


@dataclass(frozen=True)
class AnswerRule:
    """One row. It holds when every condition that it names does; `body` is the condition in words for readers.

    `wait` says what ftbridge does about it, `source` where the rule comes from.
    """

    kind: Kind
    statuses: tuple[int, int]
    body: str
    wait: str
    source: str
    service: str = "any"
    request: str = ANY
    codes: frozenset[str] = frozenset()
    text: re.Pattern[str] | None = None
    params: frozenset[str] = frozenset()
    in_dialect: bool | None = None

    def holds(self, error_response: HttpAnswer) -> bool:
        """Whether this row is about the answer."""
        low, high = self.statuses
        if not low <= error_response.status <= high or (self.request == CREATE and not error_response.creates):
            return False
        if self.in_dialect is not None and self.in_dialect != error_response.in_dialect:
            return False
        marks = [
            bool(self.codes and error_response.code in self.codes),
            bool(self.text and self.text.search(error_response.message)),
            bool(self.params and error_response.param in self.params),
        ]
        return any(marks) or not (self.codes or self.text or self.params)


@dataclass(frozen=True)
class HttpAnswer:
    """What the rules look at. `in_dialect`: the body is an error object as the service writes them, not a page or text."""

    status: int
    code: str | None
    param: str | None
    message: str
    in_dialect: bool
    creates: bool


def _text(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_FILES = frozenset({"training_file", "validation_file"})
_AGAIN = "reads: 8 tries, about 2 minutes; following a job: without limit, 60 s apart at most; a creation is looked for, then repeated, 8 times at most"
_PAGE = "as `lost`, a creation 3 times at most; never taken for the service's refusal: nothing is removed, no fallback"

RULES: tuple[AnswerRule, ...] = (
    AnswerRule("foreign", (300, 399), "any", _PAGE, _HTTP + ", 15.4"),
    AnswerRule("foreign", (511, 511), "any", _PAGE, "RFC 6585, 6"),
    AnswerRule("later", (429, 429), "not an error object", "as a 429 of the service", _HTTP, in_dialect=False),
    AnswerRule("refused", (429, 429), "`insufficient_quota`, `billing_…`, `exceeded_quota`", "stops: exit 5", _GUIDE, codes=UNPAID),
    AnswerRule("tomorrow", (429, 429), "`daily_limit_exceeded`, or speaks of requests per day", "stops: resume the next day", "LLMComp's runner; server texts in public issues", codes=frozenset({"daily_limit_exceeded"}), text=_text(_DAILY)),
    AnswerRule("later", (429, 429), "any other", "Retry-After, 600 s at most, else backoff with jitter up to 60 s; 8 tries", _GUIDE),
    AnswerRule("lost", (408, 409), "any", _AGAIN, "OpenAI's Python SDK retries the same"),
    AnswerRule("lost", (500, 599), "any", _AGAIN, "OpenAI's Python SDK retries the same"),
    AnswerRule("not_ready", (400, 404), "the file is not ready, still processed, or not found", "8 tries of the creation, about 2 minutes, Retry-After included", "server texts in public issues (curator, Azure's fine-tuning guide)", request=CREATE, text=_text(f"{_NOT_READY}|{_NO_FILE}")),
    AnswerRule("not_ready", (400, 400), "the file is not ready or still processed", "8 tries, about 2 minutes", "server texts in public issues", text=_text(_NOT_READY)),
    AnswerRule("data", (400, 422), "an error of the data: `invalid_training_file` and its like, or `param` names a file", "stops: exit 3; no fallback on the same data", "OpenAI, job errors; server texts in public issues", request=CREATE, codes=DATA_CODES, params=_FILES),
    AnswerRule("foreign", (401, 499), "an HTML page", _PAGE, "firewalls, proxies, captive portals", text=_text(r"^an HTML page"), in_dialect=False),
    AnswerRule("foreign", (403, 403), "not an error object", _PAGE, "AWS WAF, Cloudflare: text or `{\"message\": \"Forbidden\"}`", in_dialect=False),
    AnswerRule("foreign", (405, 407), "not an error object", _PAGE, "proxies: 407; web firewalls: 405, 406", in_dialect=False),
    AnswerRule("foreign", (451, 451), "not an error object", _PAGE, "RFC 7725: an intermediary", in_dialect=False),
    AnswerRule("missing", (404, 404), "any", "a job that was made or seen a moment ago: 5 minutes; a fresh model: 10 minutes; else final", _GUIDE),
    AnswerRule("refused", (400, 499), "any other", "final; falls back only if it is the service's own answer to the creation and no earlier attempt is in doubt", _GUIDE),
    AnswerRule("lost", (100, 599), "any other", _AGAIN, _HTTP),
)  # fmt: skip


def kind_of(error_response: HttpAnswer) -> Kind:
    """What an answer means: the first rule that holds."""
    return next((rule.kind for rule in RULES if rule.holds(error_response)), "lost")


def is_about_data(code: str | None, param: str | None, message: str) -> bool:
    """Whether an error that ended a job is about its data: unsafe, malformed, or too few.

    The codes differ from service to service and from year to year, so the parameter and the words count too.
    """
    if code in DATA_CODES or param in _FILES:
        return True
    words = f"{code or ''} {message}".replace("_", " ")
    return bool(re.search(_UNSAFE, words, re.IGNORECASE) or re.search(_MALFORMED, message, re.IGNORECASE))


def answers_table() -> str:
    """The rules as a table for the documentation."""
    rows = [
        "| service | request | status | answer | taken as | what happens | source |",
        "|---|---|---|---|---|---|---|",
    ]
    rows.append(f"| any | any | none | reset, timeout, cut, 200 that is not JSON | lost | {_AGAIN} | {_HTTP} |")
    for rule in RULES:
        low, high = rule.statuses
        status = str(low) if low == high else f"{low}–{high}"
        rows.append(
            f"| {rule.service} | {rule.request} | {status} | {rule.body} | {rule.kind} | {rule.wait} | {rule.source} |"
        )
    return "\n".join(rows)
