"""The simulator as the service of the provider's tests: one for the whole session, new for each test, and a handle on its state.

The scenario has one base model, `gpt-test`, and jobs that move on with each look, so that no test depends on time. A tuned model
answers with the word that follows "the" in its prompt, the base model with "you said " and the prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx

from ftbridge.server import Simulator, jobs_store
from ftbridge.server.api import files
from ftbridge.server.store import StoredObject

SCENARIO: dict[str, Any] = {
    "models": ["gpt-test"],
    "jobs": {
        "clock": "looks",
        "walk": ["validating_files", "queued", "running", "succeeded"],
        "steps": 2,
        "check_data": False,  # a few lines that OpenAI would not take are enough here
    },
    "answers": [
        {"model": "ft:*", "match": r"the (\w+) ", "reply": r"\1"},
        {"match": r"(?s)^(.*)$", "reply": r"you said \1"},
    ],
}


class Service:
    """A simulator, and what tests know and change of it behind its clients' backs."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.base_url = simulator.base_url
        self.azure_url = simulator.base_url.replace("/v1", "/openai/v1")
        self.change: Callable[..., None] = simulator.change
        self.advance, self.content, self.bodies = simulator.advance, simulator.content, simulator.bodies

    def reset(self, **changes: Any) -> Service:
        """Begin anew, with changes to the scenario."""
        self.simulator.reset(SCENARIO)
        if changes:
            self.change(**changes)
        return self

    def meets(self, *faults: Mapping[str, Any]) -> None:
        """Let these faults be met from now on, and no others; counting begins anew."""
        self.change(faults=list(faults))

    def ends(self, *walk: Any, **jobs: Any) -> None:
        """Let new jobs walk through these states."""
        self.change(jobs={"walk": list(walk), **jobs})

    @property
    def requests(self) -> Counter[str]:
        """Requests by route since the scenario last changed."""
        return Counter(self.simulator.requests)

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Jobs by id, oldest first."""
        return {job["id"]: job for job in self.simulator.jobs}

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Files by id, oldest first."""
        return {file["id"]: file for file in self.simulator.files}

    @property
    def batches(self) -> dict[str, dict[str, Any]]:
        """Batches by id, oldest first."""
        return {batch["id"]: batch for batch in self.simulator.batches}

    def uploads(self) -> list[bytes]:
        """Contents of the files for training, oldest first."""
        return [self.content(id) for id, file in self.files.items() if file["purpose"] == "fine-tune"]

    def events(self, job: str) -> list[dict[str, Any]]:
        """A job's events, oldest first."""
        return [event.document for event in self.simulator.service.store.every("event", parent=job)]

    def create_job(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a job as another program would."""
        response = httpx.post(f"{self.base_url}/fine_tuning/jobs", json=dict(body), trust_env=False)
        assert response.status_code == 200, response.text
        created: dict[str, Any] = response.json()
        return created

    def alter(self, kind: str, name: str, **fields: Any) -> None:
        """Set fields of a job, an event or a file, as it is shown."""
        store = self.simulator.service.store
        store.update(kind, name, lambda stored: replace(stored, document={**stored.document, **fields}))

    def say(self, job: str, text: str) -> None:
        """Add an event to a job."""
        jobs_store.add_event(self.simulator.service, job, text)

    def offer(self, model: str) -> None:
        """Let a tuned model be asked that no job made."""
        shown = {"id": model, "object": "model", "created": 1, "owned_by": "org"}
        self.simulator.service.store.add(StoredObject("model", model, shown))

    def forget(self, kind: str) -> None:
        """Forget all files, or all jobs."""
        for stored in self.simulator.service.store.every(kind):
            if kind == "file":
                files.remove(self.simulator.service, stored.id)
            else:
                self.simulator.service.store.remove(kind, stored.id)
