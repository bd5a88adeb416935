"""Rules about secrets: keys, tokens and passwords that a model would learn and repeat. Personal data is in `personal`.

A secret is never shown: messages hold its service and a masked form, and `Problem.secret` tells reports to hide its span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from ftbridge.data.lint.rule import Context, Problem, rule
from ftbridge.data.lint.screens import any_of, in_long_runs, pattern


def _line(question: str, completion: str = "Done.") -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": completion}]
    return json.dumps({"messages": messages})


_WHY = "Models repeat what they are trained on, and the file goes to a service and into backups."
_GOOD = _line("List my invoices with the key in the environment.")
_MOST = 20
"""Findings of one rule in one text."""

KEYS: tuple[tuple[str, str], ...] = (
    ("Anthropic", r"sk-ant-[a-z0-9]{3,12}-[A-Za-z0-9_-]{32,200}"),
    ("OpenRouter", r"sk-or-v1-[0-9a-f]{40,64}"),
    ("OpenAI", r"sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,200}"),
    ("AWS", r"(?:AKIA|ASIA)[A-Z2-7]{9}[A-Z0-9]{7}"),
    ("AWS secret", r"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[ =:\"']{1,4}[A-Za-z0-9/+]{40}"),
    ("Google", r"AIza[A-Za-z0-9_-]{35}"),
    ("Google OAuth", r"GOCSPX-[A-Za-z0-9_-]{28}"),
    ("GitHub", r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255}"),
    ("GitLab", r"glpat-[A-Za-z0-9_-]{20,64}"),
    ("Slack", r"xox[abeprs]-[A-Za-z0-9-]{16,255}"),
    ("Stripe", r"[sr]k_live_[A-Za-z0-9]{16,255}"),
    ("Hugging Face", r"hf_[A-Za-z0-9]{34,40}"),
    ("SendGrid", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("Twilio", r"SK[0-9a-f]{32}"),
    ("npm", r"npm_[A-Za-z0-9]{36}"),
    ("PyPI", r"pypi-AgE[A-Za-z0-9_-]{50,255}"),
    ("Groq", r"gsk_[A-Za-z0-9]{40,64}"),
    ("xAI", r"xai-[A-Za-z0-9]{60,100}"),
    ("Databricks", r"dapi[0-9a-f]{32}"),
    ("DigitalOcean", r"do[opr]_v1_[0-9a-f]{64}"),
    ("Shopify", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("Telegram", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
)
"""Services and the form of their keys, each with at least 20 letters, digits, `_` or `-` in a row (see `in_long_runs`).
Sources: the services' own announcements of key formats, as collected by GitHub's list of secret scanning patterns."""
_HINTS = re.findall(
    rb"\S+",
    b"sk- AKIA ASIA aws_secret AWS_SECRET AIza GOCSPX- ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox k_live_ hf_ SG. SK npm_ "
    b"pypi-AgE gsk_ xai- dapi _v1_ shp :AA",
)
"""One of these is in every key."""


def _as_written(forms: Iterable[str]) -> bytes:
    """The forms as they may stand in JSON, where quotation marks and slashes may have a backslash before them."""
    written = (form.replace("]{1,4}", r"\\]{1,8}").replace("/+]{40}", r"/+\\]{40}") for form in forms)
    return "|".join(written).encode()


_AZURE = r"AccountKey=[A-Za-z0-9+/]{86}=="
_KEY = re.compile(
    "(?<![A-Za-z0-9])(?:"
    + "|".join(f"(?P<k{index}>{form})" for index, (_, form) in enumerate(KEYS))
    + f"|(?P<azure>{_AZURE}))(?![A-Za-z0-9])"
)


@rule(
    "FTB400",
    "api-key",
    kind="text",
    severity="warning",
    reason=_WHY,
    source="GitHub docs, supported secret scanning patterns; Carlini et al., Extracting Training Data from Large "
    "Language Models (2021)",
    bad=_line("Use sk-" + "proj-Zk3Q8vN1xT7bL5mW9cR2yH6dJ4sF0aGu to list my invoices."),
    good=_GOOD,
    screen=any_of(
        in_long_runs(_as_written(form for _, form in KEYS), _HINTS),
        pattern(rb"AccountKey="),
    ),
)
def api_key(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a service's API key."""
    for match in _distinct(_KEY.finditer(text)):
        group = match.lastgroup or ""
        service = "Azure storage" if group == "azure" else KEYS[int(group[1:])][0]
        doubt = _doubt(match[0], service)
        if doubt != "placeholder":
            description = f"holds what looks like a key of {service} ({_masked(match[0])}). Revoke it and remove it."
            if doubt == "example":
                description = (
                    f"holds an example key of {service} ({_masked(match[0])}). Make sure that it is not a real one."
                )
            yield Problem(
                "", description, span=match.span(), secret=True, severity="info" if doubt == "example" else None
            )


_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----")
_BODY = re.compile(r"(?:\\[nr]|[A-Z][A-Za-z-]{2,20}: [^\n]{0,80}\n|[A-Za-z0-9+/=\s])*")


@rule(
    "FTB401",
    "private-key",
    kind="text",
    severity="warning",
    reason=_WHY,
    source="RFC 7468 (PEM), RFC 9580 (OpenPGP), and OpenSSH's PROTOCOL.key",
    bad=_line("-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2 + "\n-----END PRIVATE KEY-----"),
    good=_line("What does a line that reads BEGIN PRIVATE KEY mean?"),
    screen=pattern(rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY"),
)
def private_key(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a private key."""
    for count, match in enumerate(_BEGIN.finditer(text)):
        body = _BODY.match(text, match.end(), match.end() + 20_000)
        content = re.sub(r"\\[nr]|\s", "", body[0]) if body else ""
        if len(content) >= 40 and len(set(content)) > 10 and body and count < _MOST:
            description = f"holds a private key ({match[0].strip('-')[6:].lower()}). Revoke it and remove it."
            yield Problem("", description, span=(match.start(), body.end()), secret=True)


_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{17,2000}\.eyJ[A-Za-z0-9_-]{2,8000}\.[A-Za-z0-9_-]{16,2000}")


@rule(
    "FTB402",
    "json-web-token",
    kind="text",
    severity="warning",
    reason="A signed token lets anybody who has it act for its owner until it expires. " + _WHY,
    source="RFC 7519",
    bad=_line("Bearer eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiJhbm4ifQ.d8GhV2s0Lq9xN4cT7bRmZ1pKfWvYu3Ej"),
    good=_GOOD,
    screen=in_long_runs(rb"eyJ[A-Za-z0-9_-]{17}", [b"eyJ"]),
)
def json_web_token(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a JSON Web Token."""
    for match in _distinct(_TOKEN.finditer(text)):
        yield Problem("", f"holds a JSON Web Token ({_masked(match[0])}). Remove it.", span=match.span(), secret=True)


_LOGIN = re.compile(r"://([^\s:/@\"'<>]{0,100}):([^\s/@\"'<>]{3,100})@([A-Za-z0-9_.-]{1,253})")
_NO_PASSWORD = re.compile(
    r"(?i)(?:my|your|the|db|user|test|admin|root|some)?[_-]?(?:password|passwd|pass|pwd|secret|token|key)\d{0,3}|"
    r"x+|\d{2,5}[^A-Za-z0-9].*|\*+|\.+|changeme|.*[${}%<>\[\]…].*"
)


@rule(
    "FTB403",
    "password-in-url",
    kind="text",
    severity="warning",
    reason="The address of a database or a service with its password in it. " + _WHY,
    source="RFC 3986 section 3.2.1: a password in a URL is a security risk",
    bad=_line("Connect to postgres://ann:k7Rw-2vQx@db.internal:5432/shop"),
    good=_line("Connect to postgres://user:password@localhost:5432/shop"),
    screen=pattern(rb":(?://|\\/\\/)[^ @/]{3,1300}@"),
)
def password_in_url(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a URL with a password."""
    for match in _distinct(_LOGIN.finditer(text)):
        user, password, host = match.groups()
        if password.lower() != user.lower() and not _NO_PASSWORD.fullmatch(password) and not _is_example(host):
            description = (
                f"holds a URL with a password (://{user[:1]}…:•••@{host[:60]}). Change the password and remove it."
            )
            yield Problem("", description, span=match.span(2), secret=True)


def _is_example(host: str) -> bool:
    return re.search(r"(?:^|\.)(?:example(?:\.(?:com|org|net))?|invalid|test)\.?$", host) is not None


_SEQUENCES = ("0123456789", "1234567890", "abcdefgh", "qwerty", "deadbeef")


def _doubt(key: str, service: str) -> str:
    """`placeholder` for what nobody can take for a key, `example` for one out of documentation, else empty."""
    tail = re.split("[=:]", key, maxsplit=1)[1] if service in ("AWS secret", "Azure storage") else key
    lower = tail.lower()
    letters = re.sub(r"[^a-z0-9]", "", lower)[-32:]
    if len(set(letters)) < 8 or re.search(r"(?:your|insert|placeholder|redacted)[_-]|x{5}|\*{3}", lower):
        return "placeholder"
    if service == "OpenAI" and not (re.search(r"\d", tail) and re.search(r"[A-Za-z]{2}", tail[3:])):
        return "placeholder"  # sk- begins names of other things too: sk-estimator-doc-link
    if service == "OpenAI" and re.fullmatch(r"(?:[a-z]+-)+[a-z0-9]{0,12}", tail):
        return "placeholder"
    return "example" if "example" in lower or any(sequence in lower for sequence in _SEQUENCES) else ""


def _distinct(matches: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    seen: set[str] = set()
    for match in matches:
        if match[0] not in seen and len(seen) < _MOST:
            seen.add(match[0])
            yield match


def _masked(secret: str) -> str:
    """Its first letters up to a sign, at most four, and its last four."""
    head = re.match(r"[A-Za-z0-9]{1,4}[-_.]?", secret)
    return f"{head[0] if head else ''}…{secret[-4:]}"
