"""What a host can do, asked without making or paying anything; and whether a lost job could be found there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import fault_of, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.marks import token_of
from ftbridge.providers.openai.lower import TOKEN_KEY
from ftbridge.providers.openai.retry import read
from ftbridge.runs.journal import Journal

_NO_SUCH = frozenset({401, 403, 404, 405, 410, 501})
"""Answers that say that a list is not to be had; any other failure may pass."""


def check_lists(at: Connection, ledger: Ledger) -> str | None:
    """Ask for one job of the list; returns why lists are not to be had, which is journalled, or None.

    Raises `ServiceUnavailable` when the service does not answer.
    """

    def ask() -> str | None:
        try:
            require_fields(at.client.fine_tuning.jobs.list(limit=1), "data")
        except Exception as error:
            fault = fault_of(error)
            if fault.status in _NO_SUCH and fault.kind != "foreign":
                return fault.message
            raise
        return None

    why = read(ask, "looking at the list of jobs", at.service)
    ledger.append("marks", lists=why is None, why=why)
    return why


def note_marks(at: Connection, job: Any) -> None:
    """Remember, for every run of the account, which marks of a submission the service shows in the job that it made."""
    registry = Journal(at.registry)
    if at.is_usual_address or any(event.type == "marks" for event in registry.read()):
        return
    registry.append("marks", token=token_of(job) is not None, file=getattr(job, "training_file", None) is not None)


def unpromised(at: Connection, ledger: Ledger) -> str | None:
    """Why a creation that gets no answer could not be looked for here; None where it can."""
    lists = ledger.last("marks")
    if lists is not None and lists.data.get("lists") is False:
        return f"{at.service} does not allow this key to list jobs ({lists.data.get('why')})"
    marks = [event for event in Journal(at.registry).read() if event.type == "marks"]
    if marks and not marks[-1].data.get("token") and not marks[-1].data.get("file"):
        return f"{at.service} returns neither the metadata nor the training file of its jobs"
    return None


def probe(at: Connection) -> dict[str, str]:
    """What each part of the interface answers: yes, no and why, or not known. Nothing is made, nothing is paid."""
    client = at.client
    jobs: list[Any] = []

    def listed() -> Any:
        page = require_fields(client.fine_tuning.jobs.list(limit=20), "data")
        jobs.extend(page.data)
        return page

    results = {
        "models": _try(lambda: require_fields(client.models.list(), "data")),
        "files": _try(lambda: require_fields(client.files.list(limit=1), "data")),
        "jobs are listed": _try(listed),
        "batches": _try(lambda: require_fields(client.batches.list(limit=1), "data")),
    }
    if jobs:
        first = str(jobs[0].id)
        results["events"] = _try(lambda: require_fields(client.fine_tuning.jobs.list_events(first, limit=1), "data"))
        results["checkpoints"] = _try(
            lambda: require_fields(client.fine_tuning.jobs.checkpoints.list(first, limit=1), "data")
        )
        results["jobs show their file"] = "yes" if any(getattr(job, "training_file", None) for job in jobs) else "no"
        has_mark = any(token_of(job) for job in jobs)
        results["jobs show their metadata"] = (
            "yes" if has_mark else "not known: no job of ftbridge is among the last 20"
        )
        nothing = _count(lambda: client.fine_tuning.jobs.list(limit=1, metadata={TOKEN_KEY: "no such run"}))
        results["lists are filtered by metadata"] = {0: "yes", None: "not known"}.get(
            nothing, "no: the filter is ignored"
        )
    return results


def _try(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        fault = fault_of(error)
        why = f"{fault.status}: {fault.message}" if fault.status else fault.message
        return f"no ({why})" if fault.status in _NO_SUCH else f"not known ({why})"
    return "yes"


def _count(call: Callable[[], Any]) -> int | None:
    try:
        return len(require_fields(call(), "data").data)
    except Exception:
        return None
