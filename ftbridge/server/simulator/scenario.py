r"""A scenario: how the simulated service behaves, and what goes wrong. Written in YAML or JSON; every key has a default.

    seed: 7
    jobs: {walk: [[validating_files, 0.5], [queued, 0.5], [running, 2], succeeded]}
    answers: [{model: "ft:*", match: "the (\w+) lamp", reply: "\1"}]
    faults:
      - {on: "POST /fine_tuning/jobs", nth: 1, fault: reset, when: after}
      - {on: "POST /chat/completions", chance: 0.2, fault: error, status: 429, retry_after: 1}

docs/server.md explains every key.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from ftbridge.errors import UsageError
from ftbridge.server.simulator.account import Account
from ftbridge.server.simulator.fault import Fault, Part, regular_expression
from ftbridge.spec.problems import problems


class Jobs(Part):
    """What jobs do. A walk is a list of states with how long they last; the last is an end, and an unknown word is allowed."""

    walk: list[tuple[str, float] | str] = Field(
        default=[("validating_files", 0.3), ("queued", 0.2), ("running", 2.0), "succeeded"],
        description="States in their order, with how long each lasts, in seconds or looks.",
    )
    clock: Literal["seconds", "looks"] = Field(
        default="seconds",
        description="What moves a job: time, or each `GET` of the job. A state without a number then lasts one look.",
    )
    error: dict[str, Any] | None = Field(
        default={"code": "server_error", "message": "The job failed on the service's side.", "param": None},
        description="The error of a walk that ends in `failed`.",
    )
    check_data: bool = Field(default=True, description="Let the linter fail jobs whose data OpenAI would refuse.")
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Steps of training; else from examples, epochs and batch size."
    )
    chooses: dict[Literal["n_epochs", "batch_size", "learning_rate_multiplier"], Annotated[float, Field(gt=0)]] = Field(
        default={},
        description="What jobs take where `auto` is asked for, by hyperparameter; by the general rules without it.",
    )
    metrics: bool = Field(default=True, description="Whether events carry figures.")
    healthy_error: Literal["null", "empty", "object_of_nulls"] = Field(
        default="null", description="What `error` is while nothing is wrong."
    )
    base64_results: bool = Field(default=False, description="Whether result files come base64-encoded.")
    keeps_metadata: bool = Field(default=True, description="Whether `metadata` is kept, as some gateways do not.")

    @field_validator("walk")
    @classmethod
    def _ends(cls, walk: list[tuple[str, float] | str]) -> list[tuple[str, float] | str]:
        states = [state if isinstance(state, str) else state[0] for state in walk]
        ends = ("succeeded", "failed", "cancelled")
        if len(states) == 1:
            raise ValueError(f"a state must come before {states[0]}, as in [running, {states[0]}]")
        if not states or states[-1] not in ends or any(state in (*ends, "paused") for state in states[:-1]):
            raise ValueError(
                "the last state, and only the last, must be succeeded, failed or cancelled; paused is none"
            )
        return walk

    @property
    def states(self) -> list[tuple[str, float]]:
        """Every state with how long it lasts, in seconds or looks."""
        shortest = 1.0 if self.clock == "looks" else 0.0
        return [(state, shortest) if isinstance(state, str) else state for state in self.walk]


class Answer(Part):
    """One rule of the script; the first that fits answers. `reply` may use the groups of `match`."""

    model: str = Field(default="*", description="The model's name, with * and ?.")
    match: str = Field(default="", description="A regular expression looked for in the last message.")
    reply: str | None = Field(default=None, description="The answer.")
    reasoning: str | None = Field(default=None, description="Reasoning before it, unless the effort asked for is none.")
    tool_calls: list[dict[str, Any]] = Field(default=[], description="Calls: [{name, arguments}].")
    finish_reason: Literal["stop", "length"] = Field(default="stop", description="Why the answer ends.")

    @field_validator("match")
    @classmethod
    def _compiles(cls, text: str) -> str:
        return regular_expression(text)


class Chat(Part):
    """How chats are answered."""

    first_token_seconds: Annotated[float, Field(ge=0)] = Field(default=0.0, description="Wait before an answer.")
    tokens_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Pace of an answer, in words a second; else at once."
    )
    at_once: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="More answers at the same time are refused with 429."
    )
    not_loaded: Annotated[int, Field(ge=0)] = Field(
        default=0, description="So many first chats with each new tuned model are refused with 404."
    )


class Scenario(Part):
    """A whole scenario."""

    seed: int = Field(default=0, description="Draws chances, ids and losses.")
    speed: Annotated[float, Field(gt=0)] = Field(default=1.0, description="How fast the clock of jobs runs.")
    models: list[str] = Field(
        default=[
            "gpt-4.1-2025-04-14",
            "gpt-4.1-mini-2025-04-14",
            "gpt-4.1-nano-2025-04-14",
            "gpt-4o-2024-08-06",
            "gpt-4o-mini-2024-07-18",
            "gpt-3.5-turbo",
        ],
        description="Base models; others are unknown.",
    )
    shutdown: dict[str, str] = Field(default={}, description="Shutdown dates by model, YYYY-MM-DD.")
    file_status: Literal["processed", "uploaded", "error"] | None = Field(
        default="processed", description="The status of new files; null as some services tell none."
    )
    jobs: Jobs = Field(default=Jobs(), description="What jobs do.")
    chat: Chat = Field(default=Chat(), description="How chats are answered.")
    account: Account | None = Field(default=None, description="What an organization has; `--account FILE` reads it.")
    answers: list[Answer] = Field(default=[], description="The script; what fits none is echoed.")
    faults: list[Fault] = Field(default=[], description="What goes wrong, each in turn.")

    def answer_for(self, model: str, text: str) -> tuple[Answer, re.Match[str]] | None:
        """The first rule that fits."""
        for rule in self.answers:
            if fnmatchcase(model, rule.model) and (match := re.search(rule.match, text)):
                return rule, match
        return None


def load(path: Path) -> Scenario:
    """Read a scenario. Raises `UsageError` that names every key at fault."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    return understand(document or {}, str(path))


class _Loader(yaml.SafeLoader):
    """YAML in which `on` is a word: YAML 1.1 reads it as true."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def understand(document: Any, where: str = "the scenario") -> Scenario:
    """A scenario from plain values; a bare list is its faults. Raises `UsageError`."""
    try:
        return Scenario.model_validate({"faults": document} if isinstance(document, list) else document)
    except ValidationError as error:
        raise UsageError(
            "\n".join(problems(error, Scenario, where)[:20]), hint="docs/server.md lists every key."
        ) from None
