"""Any chat-completions endpoint as a sampler: an address and a model, no job and no run."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ftbridge.providers.base import Sampler
from ftbridge.providers.openai.client import TIMEOUT, Connection, checked, http_client
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.sampling.sampler import ChatSampler
from ftbridge.providers.openai.targets import TARGETS, Target
from ftbridge.redaction import remember

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "FTBRIDGE_ENDPOINT_API_KEY"
"""The only key that is sent: a service's own key does not go to an address from a command line."""


class _Endpoint(Connection):
    """A connection to an address that needs no key, or has one of its own."""

    @property
    def target(self) -> Target:
        return replace(TARGETS["custom"], title="the endpoint", keys=(KEY,))

    @cached_property
    def client(self) -> OpenAI:
        from openai import OpenAI

        key = os.environ.get(KEY, "").strip() or "none"
        remember(key)
        http = http_client(self.base_url)
        return OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=TIMEOUT, http_client=http)


def endpoint_sampler(address: str, model: str) -> Sampler:
    """Greedy answers of `model` at `address` (up to and with /v1). Raises `UsageError` for what is not an address."""
    request = OpenAIRequest(
        target="custom", base_url=address, organization=None, project=None, api_version=None, deployment=None,
        batch=False, max_usd=None, n_epochs=1, body={"model": model}, extra={},
    )  # fmt: skip
    return ChatSampler(_Endpoint(request, checked(address)), model, fresh=False)
