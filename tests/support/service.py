"""What requests to the simulator are made of: a model, a chat, a training file."""

from __future__ import annotations

import json

BASE = "gpt-4.1-mini-2025-04-14"


CHAT = [{"role": "user", "content": "Which colour?"}]


def lines(count: int = 12, first: int = 0) -> bytes:
    """A training file."""
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What does ticket number {n} want?"},
                    {"role": "assistant", "content": f"Ticket {n} wants a refund of {7 * n} euros."},
                ]
            }
        ).encode()
        + b"\n"
        for n in range(first, first + count)
    )
