"""The preflight process: is the model there and usable, and does every example fit? No weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftbridge.providers.base import Submission
from ftbridge.providers.local.process.child import serve
from ftbridge.providers.local.request import LocalRequest


def respond(request_document: dict[str, Any], tell: Callable[..., None]) -> None:
    """Check one submission and keep its tokens; tells {model, source, sha256, tokens per split, trained tokens, notes}."""
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.process.job import encoded_folder
    from ftbridge.providers.local.process.run_training import make_ready

    submission = Submission.model_validate(request_document)
    request = LocalRequest.of(submission.request)
    pick(request.device, request.precision)
    ready = make_ready(
        request, submission.train, submission.validation, _progress(tell), encoded_folder(submission.folder)
    )
    splits = {"train": ready.train, "validation": ready.validation}
    tell(
        "result",
        model=ready.base.name,
        source=ready.base.source,
        sha256=ready.base.sha256,
        tokens={name: split.tokens for name, split in splits.items() if split},
        trained_tokens={name: split.num_loss_tokens for name, split in splits.items() if split},
        notes=list(ready.notes),
    )


def _progress(tell: Callable[..., None]) -> Callable[[str, float], None]:
    shown = ""

    def progress(what: str, done: float) -> None:
        nonlocal shown
        text = f"{what} {done:4.0%}"
        if text != shown:
            shown = text
            tell("progress", text=text)

    return progress


if __name__ == "__main__":
    serve(respond)
