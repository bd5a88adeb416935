"""Keys and passwords out of text, and addresses that hold none: the one place that decides both.

remember(key)             a key that this process uses
without_secrets(text)     messages, tracebacks, recordings: every key known here, and whatever looks like one
without_keys(text)        what a model said: only the keys that this process uses, so that nothing else is changed
address_problem(address)  why a service must not be named by this address
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|gsk|sess|key)-[A-Za-z0-9_*.-]{6,}|(?<=Bearer )\S+", re.IGNORECASE)
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]+@")
_NAMES_A_SECRET = re.compile(r"_(?:KEY|TOKEN|SECRET|PASSWORD)$")
_SHORTEST, _SHORTEST_IN_ENVIRONMENT = 4, 8
"""Shorter values are not keys; taking them out would only spoil messages."""
_SHORTEST_IN_ANSWERS = 16
"""A placeholder such as `none` or `not-needed` may be a word of an answer; keys of services are longer."""
TAKEN_OUT = "[key]"
"""What stands in place of a key."""
_remembered: set[str] = set()


def remember(key: str) -> None:
    """Have this key taken out of every text from now on."""
    _remembered.add(key)


def without_secrets(text: str) -> str:
    """Text without keys and passwords: those in use, those in the environment, and whatever looks like one."""
    secrets = {key for key in _remembered if len(key) >= _SHORTEST}
    for name, value in os.environ.items():
        if _NAMES_A_SECRET.search(name) and len(value.strip()) >= _SHORTEST_IN_ENVIRONMENT:
            secrets.add(value.strip())
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, TAKEN_OUT)
    return _PASSWORD_IN_ADDRESS.sub("[password]@", _LOOKS_LIKE_A_KEY.sub(TAKEN_OUT, text))


def without_keys(text: str) -> str:
    """Text without the keys that this process uses; nothing else is changed."""
    for secret in _remembered:
        if len(secret) >= _SHORTEST_IN_ANSWERS and secret in text:
            text = text.replace(secret, TAKEN_OUT)
    return text


def address_problem(address: str) -> str | None:
    """Why an address cannot name a service, as the rest of a sentence that never repeats the address; None if it can.

    An address is written into run folders and reports, so it contains no user name, password or key.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "cannot be read; write it as https://HOST/v1"
    if parts.scheme not in ("http", "https") or not host:
        return "is not a service's address; write it as https://HOST/v1"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password; keys belong in the environment, since addresses are written into the run"
    if parts.query or parts.fragment:
        return "ends with ? or #; an address has neither, and is written into the run (azure: set openai.api_version)"
    return None


def whole_characters(text: str) -> str:
    """Text that can be written as UTF-8: halves of characters that belong together are joined, single halves become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
