"""A scripted account: what an organization has at the service, with what is missing, refused, limited and soon to end.

    organization: org-acme
    keys: {sk-support: {project: proj_support}, sk-admin-acme: {admin: true}}
    jobs:
      - {id: ftjob-triage1, project: proj_support, model: gpt-4.1-mini-2025-04-14, suffix: triage, training: train.jsonl}
    models: {gpt-4.1-mini-2025-04-14: {shutdown: 49}}

Days are counted from the start of the simulator: -30 is a month ago, 49 in seven weeks. `seeding.py` puts it into the store.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.errors import UsageError
from ftbridge.spec.problems import problems

DAY = 86_400
Day = Annotated[
    int | datetime.date, Field(description="Days from now (negative: ago), or a date.", union_mode="left_to_right")
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AccountKey(_Part):
    """A key, and what it may do."""

    project: str | None = Field(default=None, description="The project that the key belongs to.")
    admin: bool = Field(default=False, description="Whether it is an admin key, which only administers.")
    without: list[str] = Field(default=[], description="Scopes that it lacks, such as `api.files.read`.")
    status: Literal[401, 403] = Field(default=403, description="The status of what it may not do.")


class AccountJob(_Part):
    """A job that ended long ago."""

    id: str = Field(
        pattern=r"^ftjob-[A-Za-z0-9]+$", description="Its id; the model's name ends with the part after ftjob-."
    )
    project: str = Field(default="proj_default", description="The project that it belongs to.")
    model: str = Field(default="gpt-4.1-mini-2025-04-14", description="The base model.")
    continues: str | None = Field(default=None, description="The id of the job whose model this one trained further.")
    method: Literal["supervised", "dpo", "reinforcement"] = Field(default="supervised", description="Its method.")
    shape: Literal["new", "old"] = Field(default="new", description="old: as before December 2024, without `method`.")
    status: Literal["succeeded", "failed", "cancelled"] = Field(default="succeeded", description="How it ended.")
    suffix: str = Field(default="", description="The suffix in the model's name.")
    created: Day = Field(default=-90, description="When it was created.")
    hyperparameters: dict[str, Any] = Field(
        default={"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8}, description="As the job shows them."
    )
    grader: dict[str, Any] | None = Field(default=None, description="The grader of a reinforcement job.")
    training: Path | None = Field(default=None, description="Its training file, beside the account file.")
    validation: Path | None = Field(default=None, description="Its validation file.")
    training_is: Literal["there", "gone", "refused"] = Field(
        default="there", description="Whether it can still be downloaded."
    )
    validation_is: Literal["there", "gone", "refused"] = Field(
        default="there", description="Whether it can still be downloaded."
    )
    results: Literal["plain", "base64", "gone"] = Field(default="plain", description="How the result file comes.")
    checkpoints: Annotated[int, Field(ge=0, le=3)] = Field(default=3, description="Checkpoints that are offered.")
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(default=30, description="Steps of its loss curve.")
    seed: int = Field(default=1, description="Its seed.")
    metadata: dict[str, str] | None = Field(default=None, description="Its metadata.")
    integrations: list[dict[str, Any]] = Field(default=[], description="Its integrations.")


class AccountModel(_Part):
    """How a model behaves, and when it stops."""

    shutdown: Day | None = Field(default=None, description="The day it stops: not listed and not found from then on.")
    stops_after: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Stop after so many answered requests, as if the day had come."
    )
    completions: Path | None = Field(
        default=None,
        description="A chat dataset: a prompt that ends with one of its user messages gets that completion.",
    )
    noise: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Share of sampled completions (temperature above 0) that are those of another line."
    )
    shared_with: list[str] = Field(default=[], description="Projects that have permission to use it.")


class AccountStored(_Part):
    """Completions that clients stored: the lines of a chat dataset, or so many with a made-up prompt."""

    model: str = Field(description="The model, or the id of the job that made it.")
    prompts: Path | None = Field(default=None, description="A chat dataset whose lines were the requests.")
    count: Annotated[int, Field(ge=1)] = Field(default=20, description="How many, at most.")
    newest: Day = Field(default=-1, description="When the newest was made; the others an hour apart before it.")
    temperature: float = Field(default=0.7, description="The temperature they were made at.")
    tools: list[dict[str, Any]] | None = Field(default=None, description="Tools of the requests.")
    response_format: dict[str, Any] | None = Field(default=None, description="Their response format.")
    image: Literal["none", "kept", "lost"] = Field(default="none", description="Whether requests held an image.")
    content: Literal["text", "null", "refusal"] = Field(default="text", description="What the completions hold.")
    metadata: dict[str, str] = Field(default={}, description="Their metadata.")


class AccountUse(_Part):
    """Requests a day in the usage report."""

    model: str = Field(description="The model, or the id of the job that made it.")
    project: str = Field(default="proj_default", description="The project that used it.")
    requests: Annotated[int, Field(ge=0)] = Field(default=100, description="Requests a day.")
    input_tokens: int = Field(default=600, description="Tokens of one prompt.")
    output_tokens: int = Field(default=150, description="Tokens of one completion.")
    first: int = Field(default=-60, description="The first day.")
    last: int = Field(default=-1, description="The last day.")
    batch: bool = Field(default=False, description="Whether the requests came in batches.")


class AccountLimit(_Part):
    """Rate limits of a project and model. `*` limits every request of a key, whatever it is for."""

    model: str = Field(default="*", description="The model.")
    project: str | None = Field(default=None, description="The project; all where none is named.")
    requests_per_minute: int | None = Field(default=None, description="Requests a minute.")
    tokens_per_minute: int | None = Field(default=None, description="Tokens a minute.")
    requests_per_day: int | None = Field(default=None, description="Requests a day; shown, not enforced.")
    batch_queue_tokens: int | None = Field(
        default=None, description="Input tokens that may be enqueued; a batch with more fails as token_limit_exceeded."
    )


class AccountBatch(_Part):
    """How a batch ends that does not complete."""

    nth: Annotated[int, Field(ge=1)] = Field(default=1, description="Which batch, by its place among those created.")
    ends: Literal["expired", "failed"] = Field(
        default="expired", description="expired: after some lines; failed: none."
    )
    after: Annotated[int, Field(ge=0)] = Field(default=1, description="Lines that are answered before it expires.")
    code: str = Field(default="token_limit_exceeded", description="The code of the error of a failed batch.")


class Account(_Part):
    """A whole account."""

    organization: str = Field(default="org-acme", description="The organization's id.")
    keys: dict[str, AccountKey] = Field(
        default={}, description="Keys that are known; with none, any key may do anything."
    )
    projects: dict[str, str] = Field(default={}, description="Projects: id and name.")
    jobs: list[AccountJob] = Field(default=[], description="Jobs.")
    filler_jobs: Annotated[int, Field(ge=0, le=200_000)] = Field(
        default=0, description="So many older jobs that failed, to make lists long."
    )
    models: dict[str, AccountModel] = Field(default={}, description="Models by name, or by the id of their job.")
    stored: list[AccountStored] = Field(default=[], description="Stored completions.")
    use: list[AccountUse] = Field(default=[], description="The usage report.")
    limits: list[AccountLimit] = Field(default=[], description="Rate limits.")
    minute: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="Seconds that a minute of the limits lasts."
    )
    batches: list[AccountBatch] = Field(default=[], description="Batches that end badly.")
    batch_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="How long a batch waits before it begins."
    )
    ahead: float = Field(default=0.0, description="Seconds that the service's clock is ahead of this machine's.")

    def tuned(self, job: AccountJob) -> str:
        """The name of the model that a job made."""
        root = job
        while root.continues is not None:
            root = self.job(root.continues)
        return f"ft:{root.model}:{self.organization.removeprefix('org-')}:{job.suffix}:{job.id.removeprefix('ftjob-')}"

    def job(self, id: str) -> AccountJob:
        """The job with this id. Raises `UsageError`."""
        for job in self.jobs:
            if job.id == id:
                return job
        raise UsageError(f"the account has no job {id!r}.")

    def name_of(self, model: str) -> str:
        """A model's name; that of the model that a job made, where `model` is a job's id."""
        return self.tuned(self.job(model)) if model.startswith("ftjob-") else model

    def behaviour(self, model: str) -> AccountModel:
        """How a model behaves; checkpoints are like their model."""
        name = model.split(":ckpt-step-")[0]
        return next((one for key, one in self.models.items() if self.name_of(key) == name), AccountModel())

    def shutdown(self, model: str, start: float) -> datetime.date | None:
        """The day a model stops, its base model's where it has none of its own. `start` is Unix seconds."""
        base = model.removeprefix("ft:").split(":")[0]
        for one in (self.behaviour(model), self.behaviour(base)):
            if one.shutdown is not None:
                return date_of(one.shutdown, start)
        return None

    def known_projects(self) -> dict[str, str]:
        """Every project that is named anywhere."""
        named = [key.project for key in self.keys.values()] + [job.project for job in self.jobs]
        return {**{name: name.removeprefix("proj_") for name in named if name}, **self.projects}


def moment(day: int | datetime.date, start: float) -> int:
    """Unix seconds of a day; `start` is now."""
    if isinstance(day, int):
        return int(start) + day * DAY
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.timezone.utc).timestamp())


def date_of(day: int | datetime.date, start: float) -> datetime.date:
    """A day as a date (UTC); `start` is now."""
    return datetime.datetime.fromtimestamp(moment(day, start), datetime.timezone.utc).date()


def load_account(path: Path) -> Account:
    """Read an account in YAML or JSON; its files are beside it. Raises `UsageError` that names every key at fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    return understand_account(document or {}, path.parent, str(path))


def understand_account(document: Any, folder: Path = Path(), where: str = "the account") -> Account:
    """An account from plain values. Raises `UsageError`, also for a file that is not there."""
    try:
        account = Account.model_validate(document)
    except ValidationError as error:
        raise UsageError(
            "\n".join(problems(error, Account, where)[:20]), hint="docs/server.md lists every key."
        ) from None
    jobs = [_placed(job, folder, "training", "validation") for job in account.jobs]
    stored = [_placed(one, folder, "prompts") for one in account.stored]
    models = {name: _placed(one, folder, "completions") for name, one in account.models.items()}
    return account.model_copy(update={"jobs": jobs, "stored": stored, "models": models})


def _placed(part: Any, folder: Path, *names: str) -> Any:
    update = {}
    for name in names:
        path = getattr(part, name)
        if path is not None:
            update[name] = folder / path
            if not update[name].is_file():
                raise UsageError(f"{update[name]}: the account names this file, and it is not there.")
    return part.model_copy(update=update)


def job_number(id: str) -> str:
    """What a job's other ids are made of."""
    return re.sub(r"[^A-Za-z0-9]", "", id.removeprefix("ftjob-"))
