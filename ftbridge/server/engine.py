"""What does the work behind the server: the local provider, or a script. The whole contract in one short file.

The server keeps the books (files, jobs, events, pages, errors); an engine moves jobs on and answers chats. It changes jobs
through `ftbridge.server.jobs_store` only. All methods are called in the server's event loop; none may block it for long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from ftbridge.providers.local.inference.requests import GenerationRequest, StreamEvent

if TYPE_CHECKING:
    from ftbridge.server.requests.job import CreateJob
    from ftbridge.server.service import Service
    from ftbridge.server.store import StoredObject


class ServingEngine(Protocol):
    """Trains and answers."""

    name: str

    async def start(self, service: Service) -> None:
        """Take up the work; jobs of an earlier process that have not ended go on."""
        ...

    async def stop(self) -> None:
        """Put the work down so that `start` can take it up again."""
        ...

    def base_models(self) -> list[dict[str, Any]]:
        """The models that can be asked and tuned, as `Model` objects; tuned ones are in the store."""
        ...

    def told_file(self, shown: dict[str, Any]) -> dict[str, Any]:
        """A new file as it is to be shown."""
        ...

    def accept(self, create_job: CreateJob) -> None:
        """Raise `ApiError` for a job that this engine cannot do: its base model, method, or settings."""
        ...

    def created(self, job: StoredObject) -> None:
        """A job is in the books now."""
        ...

    def looked_at(self, job: StoredObject) -> None:
        """A client is about to be shown this job."""
        ...

    def advance(self) -> None:
        """Called before each request is answered: bring the books up to date, if that takes no waiting."""
        ...

    async def cancel(self, job: StoredObject) -> None:
        """End a job that has not ended."""
        ...

    async def pause(self, job: StoredObject) -> None:
        """Let a running job save its state and stop."""
        ...

    async def resume(self, job: StoredObject) -> None:
        """Let a paused job go on."""
        ...

    def answerable(self, model: str) -> None:
        """Raise `ApiError` 404 when there is no such model to ask."""
        ...

    def model_id(self, model: str) -> str:
        """The full name of a model that can be asked: the dated one where a client left the date out."""
        ...

    def generate(self, model: str, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
        """The answers to a chat, piece by piece; closing the iterator ends them. Raises `ApiError`."""
        ...
