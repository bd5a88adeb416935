"""One fault of a scenario: what goes wrong, and with which requests. `inject.py` and `changed.py` act it out."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LINE = "LINE"
"""In the place of a method: a line of a batch, as in `LINE /chat/completions`."""


class Part(BaseModel):
    """A part of a scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(Part):
    """One thing that goes wrong, and with which requests.

    `on` is a method and a path without /v1, ids as {id}; `*` for any. Of the requests that match, `nth` (1 is the first),
    `every`, or `chance` (0..1, drawn from the seed) choose; without them all. `times` bounds how often. With `where`, the
    requests that count are those whose answer has these fields. A line of a batch is met as `LINE /chat/completions`, and
    can fail or be altered as if it were a request.
    """

    on: str = Field(
        default="*",
        description="As in `POST /fine_tuning/jobs` or `GET /files/{id}`; `*` is any request. "
        "`LINE /chat/completions` is a line of a batch.",
    )
    model: str = Field(default="*", description="Only chats with a model that matches, as in `ft:*`.")
    body: str | None = Field(
        default=None, description="Only requests whose body has a text that fits this regular expression."
    )
    where: dict[str, Any] = Field(
        default={},
        description="alter: only answers with these values at these paths, as in `{status: succeeded}`. "
        "lag: only objects with these values.",
    )
    nth: int | list[int] | None = Field(default=None, description="Which of the matching requests; 1 is the first.")
    every: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Each so-many-th request.")
    chance: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, description="Share of the requests.")
    times: Annotated[int, Field(ge=1)] | None = Field(default=None, description="At most so often.")

    fault: Literal[
        "error",
        "training_not_available",
        "reset",
        "redirect",
        "cut",
        "slow",
        "html",
        "alter",
        "lag",
        "shuffle",
        "twice",
        "endless",
    ] = Field(default="error", description="What goes wrong; the table above tells.")
    when: Literal["before", "after"] = Field(
        default="before", description="error, reset, slow: before the request took effect, or after."
    )
    status: Annotated[int, Field(ge=400, le=599)] = Field(default=500, description="error: the HTTP status.")
    code: str | None = Field(default=None, description="error: the error's code.")
    type: str | None = Field(default=None, description="error: the error's type.")
    param: str | None = Field(default=None, description="error: the error's param.")
    message: str = Field(default="A fault on order.", description="error: the error's message.")
    retry_after: float | Literal["date"] | None = Field(
        default=None, description="error: Retry-After in seconds, or the date 1 s from now."
    )
    headers: dict[str, str] = Field(default={}, description="error: more headers, such as x-should-retry.")
    seconds: Annotated[float, Field(ge=0, le=3600)] = Field(default=5, description="slow: how long.")
    set: dict[str, Any] = Field(
        default={}, description="alter: fields of the answer by path; `data[].status` is that of every entry."
    )
    remove: list[str] = Field(default=[], description="alter: paths that are taken out.")
    lists: Annotated[int, Field(ge=1)] = Field(
        default=1, description="lag: how many lists an object is missing from before it is shown."
    )
    to: str | None = Field(default=None, description="redirect: the address that takes the place of `…/v1`.")

    @field_validator("on")
    @classmethod
    def _route(cls, text: str) -> str:
        if text != "*" and not re.fullmatch(r"(\*|GET|POST|DELETE|LINE) (/\S*|\*)", text):
            raise ValueError("write a method and a path, as in `POST /fine_tuning/jobs`, or *")
        return re.sub(r"\{\w*\}", "{}", text.replace(" /v1/", " /"))

    @field_validator("body")
    @classmethod
    def _body_compiles(cls, text: str | None) -> str | None:
        return None if text is None else regular_expression(text)

    @model_validator(mode="after")
    def _says_what(self) -> Fault:
        if self.fault == "alter" and not (self.set or self.remove):
            raise ValueError("alter needs `set` or `remove`")
        if self.where and self.fault not in ("alter", "lag"):
            raise ValueError("where belongs to alter and lag: other faults do not read the answer")
        if self.on.startswith(f"{LINE} ") and self.fault not in ("error", "alter"):
            raise ValueError("a line of a batch can meet error and alter, and no fault of a connection")
        if (self.fault == "redirect") != (self.to is not None):
            raise ValueError("redirect, and it alone, needs `to`")
        if sum(choice is not None for choice in (self.nth, self.every, self.chance)) > 1:
            raise ValueError("give one of nth, every and chance")
        return self

    def matches(self, route: str) -> bool:
        """Whether a request to `route` (`GET /files/{}`) is meant."""
        if self.on == "*":
            return not route.startswith(f"{LINE} ")
        method, _, path = self.on.partition(" ")
        its_method, _, its_path = route.partition(" ")
        return method in ((its_method,) if its_method == LINE else ("*", its_method)) and path in ("*", its_path)


def regular_expression(text: str) -> str:
    """The text, which must compile. Raises `ValueError`."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text
