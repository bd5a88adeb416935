"""Whose key a judge is asked with. OPENAI_API_KEY is one variable for two parties: the service that trains, and judges without
a `base_url`. Where these are different hosts, the key of one must not be sent to the other.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ftbridge.errors import UsageError
from ftbridge.graders import judges_of
from ftbridge.graders.chat import endpoint
from ftbridge.redaction import address_problem
from ftbridge.spec import JobSpec


def check_judges(spec: JobSpec) -> None:
    """Raise `UsageError` when a judge would be asked with another host's key, or at an address that holds a password.

    Judges without `base_url` are asked at OPENAI_BASE_URL or OpenAI with OPENAI_API_KEY. That key belongs to the service of
    the spec where the spec names its address (targets custom and openai, and azure without a key of its own).
    """
    judges = [judge for judge in judges_of(spec.evaluation.graders) if judge.base_url is None]
    if not judges:
        return
    address = endpoint(None).base_url
    if (problem := address_problem(address)) is not None:
        raise UsageError(f"OPENAI_BASE_URL {problem}.")
    service = spec.openai.base_url
    if service is None or not _reads_openai_key(spec) or _same_party(service, address):
        return
    names = ", ".join(dict.fromkeys(judge.name for judge in judges))
    raise UsageError(
        f"the judge of {names} has no base_url, so it would be asked at {urlsplit(address).netloc} with OPENAI_API_KEY, "
        f"which is the key of {urlsplit(service).netloc} (openai.base_url). Nothing was sent.",
        hint="Give the grader a base_url, such as https://api.openai.com/v1, and put its key in FTBRIDGE_JUDGE_API_KEY.",
    )


def _reads_openai_key(spec: JobSpec) -> bool:
    """Whether the service of the spec is spoken to with OPENAI_API_KEY."""
    if spec.openai.target == "azure":
        return not os.environ.get("AZURE_OPENAI_API_KEY", "").strip()
    return spec.openai.target in ("openai", "custom")


def _same_party(service: str, judge: str) -> bool:
    """Whether two addresses are one host, or both OpenAI's (which has a domain for each region)."""
    first, second = (urlsplit(address) for address in (service, judge))
    if first.netloc.lower() == second.netloc.lower():
        return True
    return all(f".{parts.hostname or ''}".lower().endswith(".api.openai.com") for parts in (first, second))
