"""The OpenAI provider: the contract of `providers.base`, over one service that speaks OpenAI's API."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ftbridge import files
from ftbridge.errors import CannotPause, FtbridgeError, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.http import sleep
from ftbridge.providers.base import (
    TERMINAL,
    Capabilities,
    ExportFormat,
    JobEvent,
    JobHandle,
    JobStatus,
    LintTarget,
    PriceBasis,
    Sampler,
    Submission,
    TunedModel,
)
from ftbridge.providers.openai import calendar, preflight
from ftbridge.providers.openai.client import Connection, connect, items_of, key_of
from ftbridge.providers.openai.errors import require_fields
from ftbridge.providers.openai.jobs.create import adopt_job, ensure_job, find_job
from ftbridge.providers.openai.jobs.follow import Follower, checkpoints_of
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.twins import open_twins
from ftbridge.providers.openai.jobs.upload import ensure_file, remove_late_copies, remove_uploaded
from ftbridge.providers.openai.lower import lower
from ftbridge.providers.openai.probe import unpromised
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.retry import read
from ftbridge.providers.openai.targets import TARGETS
from ftbridge.redaction import TAKEN_OUT, without_keys, without_secrets
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering, ProviderRequest
from ftbridge.spec.resolve import ResolvedSpec

_OWN_DATA_RULES = ("azure", "nebius")
_SERVING = ("target", "base_url", "api_version", "deployment")
_NAME_LOOKS, _NAME_SECONDS = 60, 10.0
"""Looks for the model's name after a job succeeded, and seconds between them: ten minutes."""


class OpenAIProvider:
    """Trains on a service. A job that is followed goes on when nobody looks."""

    name = "openai"
    on_interrupt: Literal["pause", "detach"] = "detach"

    def __init__(self) -> None:
        self._followers: dict[tuple[Path, str], Follower] = {}
        self._connections: dict[tuple[Path, str], Connection] = {}

    def capabilities(self, spec: JobSpec) -> Capabilities:
        """What the spec's service is known to do; it keeps the weights."""
        target = TARGETS[spec.openai.target]
        return Capabilities(methods=target.methods, pause=target.pause, hosted=True, plan="openai")

    def base_model(self, spec: JobSpec) -> str | None:
        """`model.openai`."""
        return spec.model.openai

    def lint_target(self, spec: JobSpec) -> LintTarget:
        """The service's rules, where it has its own, else OpenAI's."""
        target = spec.openai.target if spec.openai.target in _OWN_DATA_RULES else "openai"
        return LintTarget(target=target, model=spec.model.openai)

    def price_basis(self, spec: JobSpec) -> PriceBasis:
        """Tokens, at the service's list price."""
        return PriceBasis(
            unit="tokens", model=spec.model.openai or "", target=spec.openai.target, batch=spec.openai.batch
        )

    def last_day(self, spec: JobSpec, model: str) -> datetime.date | None:
        """OpenAI's announced shutdown of the model, or of the base it was tuned from; other services have their own."""
        return calendar.shutdown(model) if spec.openai.target == "openai" else None

    def auto(self, field: str, spec: JobSpec, examples: int) -> tuple[str, str] | None:
        """The service's own choice, where it takes "auto"; of the multiplier everywhere, since base rates are not published."""
        del examples
        if field == "learning_rate_multiplier":
            return "auto", f"left to the {self.name} service, whose base rates are not published"
        chooses = TARGETS[spec.openai.target].chooses
        return ("auto", "left to the service, which reports its choice") if chooses else None

    def lower(self, spec: ResolvedSpec) -> Lowering:
        """The service's request and the field mapping."""
        return lower(spec)

    def with_budget(self, request: ProviderRequest, max_usd: float | None) -> ProviderRequest:
        """The request with the limit that preflight holds the price of training against."""
        return OpenAIRequest.of(request).model_copy(update={"max_usd": max_usd})

    def preflight(self, submission: Submission, progress: Callable[[str], None]) -> None:
        """Key, model, dates, sizes and money: nothing is uploaded before they are in order."""
        at = self._connect(OpenAIRequest.of(submission.request), submission.folder)
        today = datetime.datetime.now(datetime.timezone.utc).date()
        preflight.check(at, submission, progress, today, own_calendar=at.is_usual_address)

    def submit(self, submission: Submission) -> JobHandle:
        """Upload what the account does not have and create the job, each exactly once; or find what is there.

        Blocks for the uploads and for bounded retries. After `ServiceUnavailable`, or a crash, call it again.
        """
        request = OpenAIRequest.of(submission.request)
        at, ledger = self._connect(request, submission.folder), Ledger(submission.folder)
        files.write_json(ledger.folder / "submission.json", _portable(submission))
        return self._handle(self._submitted(at, ledger, submission), submission.folder)

    def find(self, submission: Submission) -> JobHandle | None:
        """The job that `submit` made for this token, if it made one; lists that lag are looked at again. Creates nothing.

        Raises `InDoubt` when the service does not let it be found out, `ServiceUnavailable` when it is away.
        """
        ledger = Ledger(submission.folder)
        if ledger.last("service") is None:
            return None
        job = ledger.recorded("job", submission.token)
        if job is None and ledger.open_intent("job", submission.token) is not None:
            at = self._connect(OpenAIRequest.of(submission.request), submission.folder)
            job = find_job(at, ledger, submission.token)
        return None if job is None else self._handle(job, submission.folder)

    def doubt(self, submission: Submission) -> str | None:
        """Why a job of this run may be there, or run on, without being known; None when that is certain not to be."""
        ledger = Ledger(submission.folder)
        if ledger.open_intents("job"):
            return "an attempt to create the job got no response"
        if twins := open_twins(ledger):
            return f"{twins[0]}, a second job from one request, may still be running"
        return None

    def is_final(self, submission: Submission) -> bool:
        """Whether what refused the job, if anything did, was the service in its own words."""
        declined = Ledger(submission.folder).last("declined", what="job")
        return declined is None or bool(declined.data.get("sure", True))

    def forget(self, submission: Submission) -> None:
        """Take the user's word that attempts without an answer made nothing, or that another job is wanted all the same."""
        ledger = Ledger(submission.folder)
        for attempt in ledger.open_intents("job"):
            ledger.append("settled", what="job", key=attempt.data["key"], intent=attempt.seq, why="the user said so")

    def adopt(self, submission: Submission, job: str) -> JobHandle:
        """Take a job of the account as this submission's. Raises `UsageError` for one that another run has."""
        request = OpenAIRequest.of(submission.request)
        at, ledger = self._connect(request, submission.folder), Ledger(submission.folder)
        files.write_json(ledger.folder / "submission.json", _portable(submission))
        return self._handle(adopt_job(at, ledger, submission.token, job), submission.folder)

    def discard(self, submission: Submission) -> None:
        """Remove what was uploaded for a job that was never made, and will not be. Nothing is done while that is in doubt."""
        ledger = Ledger(submission.folder)
        jobs = [event for event in ledger.of("made") if event.data["what"] == "job"]
        if jobs or ledger.open_intents("job") or not any(e.data["what"] == "file" for e in ledger.of("made")):
            return
        at = self._connect(OpenAIRequest.of(submission.request), submission.folder)
        remove_uploaded(at, ledger)

    def unpromised(self, submission: Submission) -> str | None:
        """Why "exactly once" cannot be promised at this service, as preflight and earlier runs found; None where it can."""
        ledger = Ledger(submission.folder)
        if ledger.last("service") is None:
            return None
        at = self._connect(OpenAIRequest.of(submission.request), submission.folder)
        return unpromised(at, ledger)

    def poll(self, handle: JobHandle) -> JobStatus:
        """The job's state, asked of the service when it is time to look again; a service that is down changes nothing."""
        return self._follower(handle).poll()

    def events(self, handle: JobHandle, after: str | None) -> Sequence[JobEvent]:
        """What the job said, each thing once, in order."""
        return self._follower(handle).events(after)

    def cancel(self, handle: JobHandle) -> None:
        """End the job at the service."""
        self._ask(handle, "cancel")

    def pause(self, handle: JobHandle) -> None:
        """Have the service save the job's state and stop. Raises `CannotPause` where a service cannot."""
        at, _ = self._of(handle)
        if not at.target.pause:
            raise CannotPause(f"{at.service} cannot pause a job.", hint="Cancel it, or let it finish.")
        try:
            self._ask(handle, "pause")
        except (ModelUnavailable, ProviderRefused) as error:
            raise CannotPause(f"{at.service} does not pause the job: {error.message}", hint=error.hint) from None

    def resume(self, handle: JobHandle) -> JobHandle:
        """Let a paused job go on. One that failed or was cancelled stays as it is: only `retry` pays for another."""
        at, _ = self._of(handle)
        job = read(
            lambda: require_fields(at.client.fine_tuning.jobs.retrieve(handle.id), "status"),
            "looking at the job",
            at.service,
        )
        if job.status in ("paused", "pausing"):
            self._ask(handle, "resume")
        return handle

    def retry(self, handle: JobHandle) -> JobHandle:
        """Pay again for a job that failed or was cancelled: the same work as a new job, made once for each that ended."""
        at, ledger = self._of(handle)
        submission = _submission(handle.folder)
        again = submission.model_copy(update={"token": f"{submission.token}-after-{handle.id}"})
        return self._handle(self._submitted(at, ledger, again), handle.folder)

    def result(self, handle: JobHandle) -> TunedModel:
        """The model's name and those of its checkpoints. Raises `ModelUnavailable` when the service made none."""
        at, ledger = self._of(handle)
        jobs = at.client.fine_tuning.jobs
        for _ in range(_NAME_LOOKS):
            job = read(lambda: require_fields(jobs.retrieve(handle.id), "status"), "reading the result", at.service)
            if getattr(job, "fine_tuned_model", None) or not at.target.serves_tuned:
                break
            sleep(_NAME_SECONDS)  # some services name the model a while after the job's end
        remove_late_copies(at, ledger)
        names: list[str] = []
        if at.target.checkpoints:
            try:
                names = read(
                    lambda: checkpoints_of(items_of(lambda more: jobs.checkpoints.list(handle.id, limit=100, **more))),
                    "listing the checkpoints",
                    at.service,
                )
            except FtbridgeError:
                names = []  # the model itself is what counts
        model = getattr(job, "fine_tuned_model", None) or (names[-1] if names and not at.target.serves_tuned else None)
        if model is None:
            hint = (
                "Its safety evaluation may have blocked the model: check `ftbridge show` and the service's dashboard."
            )
            raise ModelUnavailable(f"{handle.id} succeeded, but {at.service} reports no model.", hint=hint)
        return TunedModel(
            provider=self.name,
            id=without_keys(str(model)),
            base=at.request.model,
            checkpoints=tuple(without_keys(name) for name in names),
        )

    def sampler(self, lowering: Lowering, model: TunedModel | None, folder: Path) -> Sampler:
        """Answers over chat completions, or through the Batch API when the spec asks for it."""
        from ftbridge.providers.openai.sampling.batch import BatchSampler
        from ftbridge.providers.openai.sampling.sampler import ChatSampler

        request = OpenAIRequest.of(lowering.request)
        at = self._connect(request, folder)
        name = request.model if model is None else (request.deployment or model.id)
        if (
            TAKEN_OUT in name
        ):  # a service that puts the key into a model's name: it was written without, and is asked with it
            name = name.replace(TAKEN_OUT, key_of(at.target))
        fresh = model is not None
        return BatchSampler(at, name, Ledger(folder)) if request.batch else ChatSampler(at, name, fresh=fresh)

    def identity(self, lowering: Lowering) -> dict[str, Any]:
        """The address and deployment that answer."""
        request = OpenAIRequest.of(lowering.request)
        serving = request.model_dump(mode="json", include=set(_SERVING), exclude_unset=True, exclude_none=True)
        if "base_url" not in serving:
            serving["base_url"] = without_secrets(os.environ.get("OPENAI_BASE_URL") or "")
        return serving

    def checkpoints(self, model: TunedModel, folder: Path) -> dict[int, str]:
        """The service's names of checkpoints, which end in the step."""
        del folder
        return {int(match[1]): name for name in model.checkpoints if (match := re.search(r"step-?(\d+)$", name))}

    def export(
        self, lowering: Lowering, model: TunedModel, format: ExportFormat, out: Path, progress: Callable[[str], None]
    ) -> Path:
        """Refused: the service keeps the weights."""
        del lowering, format, out, progress
        raise UsageError(f"{model.id} was tuned by a service, which keeps the weights.")

    def preview(self, lowering: Lowering, train: Path, count: int) -> list[list[tuple[str, bool]]]:
        """Refused: the service does not say how it tokenizes conversations."""
        del lowering, train, count
        raise UsageError("a service does not show how it turns examples into tokens; only local runs can be previewed.")

    def _submitted(self, at: Connection, ledger: Ledger, submission: Submission) -> str:
        if (job := ledger.recorded("job", submission.token)) is not None:
            return job
        check_requests = submission.check_requests or (lambda: None)
        train = ensure_file(at, ledger, submission.train, "train")
        check_requests()
        validation = None
        if submission.validation is not None:
            validation = ensure_file(at, ledger, submission.validation, "validation")
        files_of = {"training_file": train, "validation_file": validation}
        if ledger.last("submitting", token=submission.token, **files_of) is None:
            ledger.append("submitting", token=submission.token, **files_of)
        return ensure_job(at, ledger, submission.token, train, validation, check_requests)

    def _ask(self, handle: JobHandle, request: Literal["cancel", "pause", "resume"]) -> None:
        """Cancel, pause or resume; done twice they do no harm.

        A service refuses what is done already, such as a request whose answer was lost and that was sent again; then the
        job's state tells. A job that has ended meanwhile is left as it is.
        """
        at, _ = self._of(handle)
        follower = self._follower(handle)
        follower.pace.now()
        try:
            read(lambda: getattr(at.client.fine_tuning.jobs, request)(handle.id), f"asking to {request}", at.service)
        except FtbridgeError:
            follower.pace.now()
            if follower.poll().state not in TERMINAL | _DONE[request]:
                raise
        follower.pace.now()

    def _connect(self, request: OpenAIRequest, folder: Path) -> Connection:
        """One client for each run and request: its connections are kept open and used again."""
        key = (folder, request.model_dump_json())
        if key not in self._connections:
            self._connections[key] = connect(request, folder)
        return self._connections[key]

    def _of(self, handle: JobHandle) -> tuple[Connection, Ledger]:
        request = OpenAIRequest.of(_submission(handle.folder).request)
        return self._connect(request, handle.folder), Ledger(handle.folder)

    def _follower(self, handle: JobHandle) -> Follower:
        key = (handle.folder, handle.id)
        if key not in self._followers:
            self._followers[key] = Follower(*self._of(handle), handle.id)
        return self._followers[key]

    def _handle(self, job: str, folder: Path) -> JobHandle:
        return JobHandle(provider=self.name, id=job, folder=folder)


_DONE = {
    "cancel": frozenset[str](),
    "pause": frozenset({"pausing", "paused"}),
    "resume": frozenset({"validating", "queued", "running"}),
}
"""States, beside the ends, in which a job is once the request has taken effect."""


def _portable(submission: Submission) -> dict[str, object]:
    """A submission whose paths stay true when the run's folder is moved."""
    document = submission.model_dump(mode="json", exclude={"folder", "check_requests"})
    for split in ("train", "validation"):
        if document[split] is not None:
            document[split] = str(Path(document[split]).relative_to(submission.folder))
    return document


def _submission(folder: Path) -> Submission:
    document = json.loads((folder / "openai" / "submission.json").read_text(encoding="utf-8"))
    for split in ("train", "validation"):
        if document[split] is not None:
            document[split] = folder / document[split]
    return Submission(folder=folder, **document)
