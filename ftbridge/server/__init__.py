"""OpenAI's fine-tuning API as a service: over local models, or with scripted answers and injected faults.

with ftbridge.server.simulating(faults=[{"on": "POST /fine_tuning/jobs", "status": 503, "nth": 1}]) as simulator:
    client = OpenAI(base_url=simulator.base_url, api_key="any")

    app · service · store · jobs_store     the application, its state in SQLite, and how jobs change
    engine                                 the contract of an engine: local/ or simulator/
    api/ · requests/ · http/               routes, bodies, and HTTP itself
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.server.local.runs import ServedRun
    from ftbridge.server.local.sampled import SampledRun
    from ftbridge.server.service import Service
    from ftbridge.server.simulator.account import Account
    from ftbridge.server.simulator.scenario import Scenario


@dataclass(frozen=True)
class Simulator:
    """A simulator that runs. Everything it holds can be read while it does."""

    base_url: str
    service: Service

    @property
    def requests(self) -> dict[str, int]:
        """Requests by route, as in {"POST /fine_tuning/jobs": 1, "GET /files/{}": 3}."""
        return dict(self.service.faults.requests) if self.service.faults else {}

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Every job's object, oldest first."""
        return [job.document for job in self.service.store.every("job")]

    @property
    def files(self) -> list[dict[str, Any]]:
        """Every file's object, oldest first."""
        return [file.document for file in self.service.store.every("file")]

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The faults that were met."""
        return list(self.service.faults.met) if self.service.faults else []

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Requests that a model of the scripted account answered, oldest first: each was paid for. Equal `key`s are equal."""
        return list(self.service.account.ledger) if self.service.account else []

    @property
    def batches(self) -> list[dict[str, Any]]:
        """Every batch's object, oldest first."""
        return [batch.document for batch in self.service.store.every("batch")]

    def bodies(self, route: str) -> list[Any]:
        """The JSON bodies of requests to a route (`POST /fine_tuning/jobs`), oldest first, of the last 1,000 that had one."""
        faults = self.service.faults
        return [body for at, body in list(faults.bodies) if at == route] if faults else []

    def content(self, file: str) -> bytes:
        """A file's bytes."""
        return (self.service.files / file).read_bytes()

    def play(self, scenario: Scenario | Mapping[str, Any]) -> None:
        """Another scenario, from the next request on."""
        from ftbridge.server.simulator import control
        from ftbridge.server.simulator.scenario import Scenario, understand

        control.take(self.service, scenario if isinstance(scenario, Scenario) else understand(scenario))

    def change(self, **keys: Any) -> None:
        """Some keys of the scenario, from the next request on; of a section, those that are named. Counting starts again.

        Raises `UsageError` for what is not a scenario.
        """
        faults = self.service.faults
        assert faults is not None
        document = faults.scenario.model_dump()
        for key, value in keys.items():
            section = document.get(key)
            document[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, Mapping) else value
        self.play(document)

    def reset(self, scenario: Mapping[str, Any] | None = None) -> None:
        """Forget every object and request, and play another scenario: as a new simulator, at the same address, at once.

        Raises `UsageError` for what is not a scenario, and for a simulator with an account.
        """
        import json
        from urllib.error import HTTPError
        from urllib.request import ProxyHandler, Request, build_opener

        address = f"{self.base_url.removesuffix('/v1')}/simulator/reset"
        headers = {"Content-Type": "application/json"}
        request = Request(address, json.dumps(dict(scenario or {})).encode(), headers, method="POST")
        try:
            build_opener(ProxyHandler({})).open(request).close()
        except HTTPError as error:
            raise UsageError(json.loads(error.read())["error"]["message"]) from None

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        from ftbridge.server.simulator.control import Clock

        assert isinstance(self.service.clock, Clock)
        self.service.clock.ahead += seconds


@contextlib.contextmanager
def simulating(
    scenario: Scenario | Mapping[str, Any] | str | Path | None = None,
    *,
    faults: Sequence[Mapping[str, Any]] = (),
    account: Account | Mapping[str, Any] | str | Path | None = None,
    folder: Path | None = None,
    port: int = 0,
) -> Iterator[Simulator]:
    """A simulator on loopback while the block runs, in a thread of this process.

    `scenario` is a file, a mapping, or a `Scenario`; `faults` are added to it, and so is `account`, what an organization has at
    the service. Without `folder` nothing is kept. Raises `UsageError` for a scenario or an account that is none.
    """
    from ftbridge.server.app import application
    from ftbridge.server.http import network
    from ftbridge.server.simulator.account import load_account, understand_account
    from ftbridge.server.simulator.scenario import Scenario, load, understand

    if isinstance(scenario, (str, Path)):
        scenario = load(Path(scenario))
    document = scenario.model_dump() if isinstance(scenario, Scenario) else dict(scenario or {})
    chosen = understand({**document, "faults": [*document.get("faults", []), *faults]})
    if isinstance(account, (str, Path)):
        account = load_account(Path(account))
    elif isinstance(account, Mapping):
        account = understand_account(dict(account))
    if account is not None:
        chosen = chosen.model_copy(update={"account": account})
    with contextlib.ExitStack() as stack:
        directory = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftbridge-simulator-")))
        service = simulated(chosen, directory, durable=folder is not None)
        listening = stack.enter_context(contextlib.closing(network.bind("127.0.0.1", port)))
        app = application(service, hosts=network.LOOPBACK_NAMES)
        stack.enter_context(network.in_background(app, listening))
        yield Simulator(f"{network.address_of(listening)}/v1", service)


def simulated(scenario: Scenario, folder: Path, *, durable: bool = True) -> Service:
    """A simulator's service, its state in `folder`; without `durable` it need not survive a power cut."""
    from ftbridge.server.service import Service
    from ftbridge.server.simulator import control
    from ftbridge.server.simulator.engine import ScriptedEngine
    from ftbridge.server.simulator.inject import Faults
    from ftbridge.server.store import Store

    service = Service(
        folder=folder,
        store=Store(folder / "server.sqlite", durable=durable),
        engine=ScriptedEngine(scenario),
        salt=control.salt(scenario),
        clock=control.Clock(),
        faults=Faults(scenario),
    )
    if (account := scenario.account) is not None:
        from ftbridge.server.simulator.gate import AccountState
        from ftbridge.server.simulator.seeding import seed

        service.clock = control.Clock()
        service.clock.ahead = account.ahead
        service.organization = account.organization
        service.account = AccountState(account, service.clock())
        seed(service, account, service.clock())
    return service


def served(
    models: Mapping[str, str],
    folder: Path,
    *,
    home: Path,
    settings: Mapping[str, Any] | None = None,
    at_once: int = 1,
    held: int = 2,
    runs: Mapping[str, ServedRun | SampledRun] | None = None,
) -> Service:
    """The service of `ftbridge serve`: the local provider behind OpenAI's API, and `runs` under names of the client's choice.

    Raises `SpecError` for settings that are none.
    """
    from ftbridge.server.local.engine import LocalEngine
    from ftbridge.server.service import Service
    from ftbridge.server.store import Store

    engine = LocalEngine(models, home=home, settings=settings, at_once=at_once, held=held, runs=runs)
    return Service(folder=folder, store=Store(folder / "server.sqlite"), engine=engine, salt=salt(folder))


def salt(folder: Path) -> str:
    """What makes a server's ids its own: drawn once, and kept."""
    from ftbridge import files

    path = folder / "salt"
    if not path.exists():
        files.write_text(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8")
