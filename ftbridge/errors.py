"""Every error a user can cause, in one tree. Each says what happened, where, and what to do, and knows its exit code.

FtbridgeError                   1   the work failed
├── UsageError                  2   the command line or the spec is wrong
│   ├── SpecError               2   a job spec that does not validate
│   ├── LoweringRefused         2   the chosen provider cannot do what the spec asks
│   ├── RunNotFound             2   no such run
│   ├── CannotPause             2   a service that cannot pause jobs
│   ├── GraderError             2   a grader that cannot grade
│   ├── ContextTooLong          2   a prompt that is longer than the model can read
│   └── MissingDependency       2   an extra that is not installed
├── DataError                   3   a dataset with errors (file, line, field)
├── GateNotMet                  4   a budget or a margin
├── ProviderRefused             5   a provider that refuses for good
│   └── PromptsRefused          5   … every prompt that it was asked
├── InDoubt                     1   it is not known whether a paid job was made
├── ModelUnavailable            1   a model that cannot be found, reached or used
├── ServiceUnavailable          1   a service that does not answer now; resuming is safe
├── TrainingFailed              1   the job ended in `failed`
│   ├── OutOfMemory             1   … because memory ran out
│   └── WorkerDied              1   … because its process vanished
├── JobStuck                    1   a job that shows no sign of life for too long
├── DiskFull                    1   no room to write
├── RunBusy                     1   another process is driving this run
├── JournalCorrupt              1   a journal damaged other than at its tail
└── Interrupted               130   Ctrl-C; state is kept
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ftbridge.redaction import without_secrets


class FtbridgeError(Exception):
    """The root. `exit_code` is what the command returns; `hint`, when given, is one line that says what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(FtbridgeError):
    """The command line or the spec is wrong; nothing was done."""

    exit_code = 2


class SpecError(UsageError):
    """A job spec that does not validate. The message lists every problem, one a line."""


class LoweringRefused(UsageError):
    """The chosen provider cannot do something the spec asks; nothing was started."""


class RunNotFound(UsageError):
    """No run with this id, or more than one that begins with it."""


class CannotPause(UsageError):
    """A service that cannot pause jobs; the job goes on."""


class GraderError(UsageError):
    """A grader that cannot grade: its template or formula cannot be read, or it needs what this machine does not have."""


class ContextTooLong(UsageError):
    """A prompt, or a prompt and the completion asked for, that is longer than the model can read."""


class MissingDependency(UsageError):
    """A part of ftbridge whose libraries are not installed; the hint is the command that installs them."""


class DataError(FtbridgeError):
    """A dataset with errors.

    `problems` are complete sentences that begin with `file:line field`; the message shows them. `split` is the one that has
    them (train, validation or test), where it is one; `too_few` says that the fault is their number.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        problems: Sequence[str] = (),
        hint: str | None = None,
        split: str | None = None,
        too_few: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems, self.split, self.too_few = tuple(problems), split, too_few

    def details(self) -> dict[str, Any]:
        """What crosses processes beside message and hint; absent where it says nothing."""
        details = {"problems": list(self.problems), "split": self.split, "too_few": self.too_few}
        return {name: value for name, value in details.items() if value}


class GateNotMet(FtbridgeError):
    """A budget or a margin was not met."""

    exit_code = 4


class ProviderRefused(FtbridgeError):
    """The provider refuses for good; trying again cannot help."""

    exit_code = 5


class PromptsRefused(ProviderRefused):
    """A model gave no completion for any prompt that it was asked. `reasons` tells why, by the prompt's key.

    Where the model has completed other prompts before, these are the exception, and an evaluation goes on without them.
    """

    def __init__(self, message: str, *, reasons: Mapping[str, str] | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reasons = dict(reasons or {})


class InDoubt(FtbridgeError):
    """It is not known whether a request that got no answer made something that costs money; nothing else is done meanwhile."""


class ModelUnavailable(FtbridgeError):
    """A model that cannot be found, reached, or used for this work."""


class ServiceUnavailable(FtbridgeError):
    """The service does not answer, or asks to come back later. What was done is kept; resuming is safe."""


class TrainingFailed(FtbridgeError):
    """The training job ended in `failed`."""


class OutOfMemory(TrainingFailed):
    """Memory ran out, even for the smallest micro-batch."""


class WorkerDied(TrainingFailed):
    """The training process vanished without a last word."""


class JobStuck(FtbridgeError):
    """A job that shows no sign of life for longer than the spec waits; it may go on at the service."""


class DiskFull(FtbridgeError):
    """No room to write; what was complete before is intact."""


class RunBusy(FtbridgeError):
    """Another process is driving this run."""


class JournalCorrupt(FtbridgeError):
    """A journal damaged somewhere other than at its torn tail."""


class Interrupted(FtbridgeError):
    """The user pressed Ctrl-C; state is kept and the hint resumes it."""

    exit_code = 130


def document(error: BaseException) -> dict[str, Any]:
    """An error as JSON that crosses processes and journals: {kind, message, hint}, and the details of a `DataError`.

    `kind` is the class in snake_case; a class outside this file is written as the nearest one above it that stands here.
    """
    if isinstance(error, FtbridgeError):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)
        details = error.details() if isinstance(error, DataError) else {}
        message = without_secrets(error.message)
        return {"kind": _snake(kind.__name__), "message": message, "hint": error.hint, **details}
    return {"kind": "internal_error", "message": without_secrets(f"{type(error).__name__}: {error}"), "hint": None}


def from_document(written: Mapping[str, Any]) -> FtbridgeError:
    """The error that `document` wrote, as an exception of the same class; unknown kinds become `TrainingFailed`."""
    kinds = {_snake(kind.__name__): kind for kind in _tree(FtbridgeError) if kind.__module__ == __name__}
    kind = kinds.get(str(written.get("kind")), TrainingFailed)
    message, hint = written.get("message") or "the job failed without a message.", written.get("hint")
    if issubclass(kind, DataError):
        details = {name: written[name] for name in ("problems", "split", "too_few") if name in written}
        return kind(message, hint=hint, **details)
    return kind(message, hint=hint)


def _tree(kind: type[FtbridgeError]) -> list[type[FtbridgeError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class FormerName(FutureWarning):
    """A field or option is called by a name of an earlier version, which is accepted for one version more."""
