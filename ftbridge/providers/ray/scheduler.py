"""Ray's Jobs API: POST /api/jobs/, GET /api/jobs/ID, GET /api/jobs/ID/logs, POST /api/jobs/ID/stop.

Facts that the code relies on, measured with Ray 2.60: a submission id that exists is refused with status 500, so after any
failed POST the id is looked for; an unknown id is a 404; a job gets the environment of Ray's own processes, not that of the
submitter; `stop` sends SIGTERM, and SIGKILL three seconds later, and does nothing to a job that waits for resources; a missing
or wrong token is a 401 or 403.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ftbridge.errors import ProviderRefused, ServiceUnavailable, UsageError
from ftbridge.http import Policy, is_transient, retrying
from ftbridge.providers.cluster.scheduler import Ending, Order, View
from ftbridge.redaction import address_problem, without_secrets
from ftbridge.spec.sections import RaySpec

if TYPE_CHECKING:
    import httpx

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's own environment variable for the address of the Jobs API."""
ATTEMPTS = 3
"""Tries of a request that changes nothing."""
SECONDS = 30.0
"""Longest wait for one answer."""
_PATHS = ("FTBRIDGE_MODELS", "HF_HOME", "HF_HUB_CACHE")
_PLAIN = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "FTBRIDGE_WAIT_SCALE")
"""Variables of this process that a job gets too: where models are, and how they are computed. None holds a secret."""
_ENDINGS: dict[str, Ending] = {"SUCCEEDED": "completed", "FAILED": "failed", "STOPPED": "cancelled"}


class RayJobs:
    """The Ray cluster at an address, with what a spec requests of it."""

    title = "Ray"

    def __init__(self, settings: RaySpec) -> None:
        self.settings = settings

    @property
    def address(self) -> str:
        """Where the Jobs API is, without a slash at the end. Raises `UsageError` without a usable one."""
        address = self.settings.address or os.environ.get(ADDRESS_VARIABLE)
        if not address:
            raise UsageError(
                "the ray provider needs the address of the cluster's dashboard.",
                hint=f"Set ray.address in the spec, such as http://head:8265, or ${ADDRESS_VARIABLE}.",
            )
        if (problem := address_problem(address)) is not None:
            raise UsageError(f"the address of the Ray cluster {problem}.", hint="Write it such as http://head:8265.")
        return address.rstrip("/")

    def check(self, order: Order, progress: Callable[[str], None]) -> None:
        """Ask for Ray's version. Raises `UsageError`, `ProviderRefused` (no right to ask) or `ServiceUnavailable`."""
        del order
        version = self._get("/api/version")
        if version is None or "ray_version" not in version:
            raise UsageError(
                f"{self.address} is not the dashboard of a Ray cluster.",
                hint="Correct ray.address: Ray's port is 8265.",
            )
        progress(f"Ray {version['ray_version']} at {self.address}")

    def find(self, order: Order) -> str | None:
        """The order's name, if there is a job with this id."""
        return None if self._get(_path(order.name)) is None else order.name

    def submit(self, order: Order) -> str:
        """Submit the job under the order's name. After an answer that was lost, or an error, the job is looked for."""
        try:
            self._answer(self._request("POST", "/api/jobs/", self._body(order)), "submitting the job")
        except (ProviderRefused, ServiceUnavailable):
            if self.find(order) is None:
                raise
        return order.name

    def look(self, order: Order, job: str) -> View:
        """The job as the API shows it; one that Ray does not know is lost, as after a restart of the cluster."""
        del order
        document = self._get(_path(job))
        if document is None:
            return View(state="ended", ending="lost", detail="Ray has no record of it")
        word, code = str(document.get("status")), document.get("driver_exit_code")
        ending = _ENDINGS.get(word)
        detail = (
            f"exit code {code}" if ending is not None and code is not None else _first_line(document.get("message"))
        )
        state = "ended" if ending is not None else "queued" if word == "PENDING" else "running"
        return View(state=state, ending=ending, word=word, detail=detail)

    def attached(self, module: str, name: str) -> None:
        """None: Ray's Jobs API has no standard input."""
        del module, name

    def stop(self, job: str) -> None:
        """Ask Ray to end the job; one that waits for resources stays until it has them."""
        response = self._request("POST", f"{_path(job)}/stop")
        if response.status_code != 404:
            self._answer(response, "stopping the job")

    def log_tail(self, job: str) -> list[str]:
        """The last lines of what Ray captured of the job: its set-up, and errors of the shell."""
        document = self._get(f"{_path(job)}/logs")
        lines = str((document or {}).get("logs", "")).strip().splitlines()
        return [without_secrets(line) for line in lines[-20:]]

    def _body(self, order: Order) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {
            "submission_id": order.name,
            "entrypoint": entrypoint(settings, order),
            "runtime_env": {**settings.runtime_env, "env_vars": self._variables()},
            "metadata": {"ftbridge_run": order.job_name},
            "entrypoint_num_gpus": settings.gpus or None,
            "entrypoint_num_cpus": settings.cpus,
            "entrypoint_memory": None if settings.memory_gb is None else int(settings.memory_gb * 10**9),
            "entrypoint_resources": settings.resources or None,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _variables(self) -> dict[str, str]:
        """The job's variables: this process's paths and switches, and those of the spec before them."""
        paths = {name: str(Path(value).resolve()) for name in _PATHS if (value := os.environ.get(name))}
        plain = {name: value for name in _PLAIN if (value := os.environ.get(name))}
        return {"PYTHONUNBUFFERED": "1", **plain, **paths, **self.settings.runtime_env.get("env_vars", {})}

    def _get(self, path: str) -> dict[str, Any] | None:
        """The JSON object at a path, tried again for a while; None for a 404."""
        policy = Policy(
            doing=f"asking Ray for {path}",
            again=lambda error: isinstance(error, ServiceUnavailable),
            attempts=ATTEMPTS,
        )

        def once() -> dict[str, Any] | None:
            response = self._request("GET", path)
            return None if response.status_code == 404 else self._answer(response, f"GET {path}")

        document: dict[str, Any] | None = retrying(policy)(once)
        return document

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """One request. Raises `ServiceUnavailable` where no answer comes."""
        import httpx

        token = os.environ.get(self.settings.token_variable)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return httpx.request(method, f"{self.address}{path}", json=body, headers=headers, timeout=SECONDS)
        except httpx.HTTPError as error:
            why = without_secrets(str(error) or type(error).__name__)
            raise ServiceUnavailable(
                f"the Ray cluster at {self.address} does not respond ({why}).", hint=_RESUME
            ) from error

    def _answer(self, response: httpx.Response, doing: str) -> dict[str, Any]:
        """The JSON object of a response. Raises `ProviderRefused` for a refusal, else `ServiceUnavailable`."""
        text = without_secrets(_last_line(response.text))
        if response.status_code in (401, 403):
            raise ProviderRefused(
                f"the Ray cluster at {self.address} does not accept this client ({response.status_code}).",
                hint=f"Put the cluster's token in ${self.settings.token_variable}.",
            )
        if 400 <= response.status_code < 500 and not is_transient(response.status_code):
            raise ProviderRefused(f"{doing}: Ray refuses ({response.status_code}: {text}).", hint=_CHANGE)
        try:
            document = json.loads(response.text)
        except ValueError:
            document = None
        if response.status_code != 200 or not isinstance(document, dict):
            raise ServiceUnavailable(f"{doing}: Ray answers {response.status_code} ({text}).", hint=_RESUME)
        return document


def entrypoint(settings: RaySpec, order: Order) -> str:
    """The shell command of a job: the node's part of ftbridge, its output appended to the run's worker.log."""
    python = settings.python or sys.executable
    node = [python, "-m", "ftbridge.providers.cluster.node", "run", str(order.folder), order.name, order.name, "0"]
    return f"exec {shlex.join(node)} >> {shlex.quote(str(order.folder / 'worker.log'))} 2>&1"


def _path(job: str) -> str:
    return f"/api/jobs/{quote(job, safe='')}"


def _first_line(text: object) -> str:
    return str(text or "").strip().partition("\n")[0][:200]


def _last_line(text: str) -> str:
    """The last line with words: Ray's errors are tracebacks."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no text"


_RESUME = "A running job continues without it. Resume the run when the cluster responds again."
_CHANGE = "Change the spec's ray section."
