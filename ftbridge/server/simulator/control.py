"""/simulator: what a test wants to know and to move. Only where faults can be injected, never on `ftbridge serve`.

GET  /simulator          requests by route, faults met, jobs, files, most answers at once, requests that an account paid for
GET  /simulator/bodies   the JSON bodies of the last 1,000 requests that had one, with their routes, oldest first
POST /simulator/clock    {"advance": seconds}: the clock jumps, and jobs with it
PUT  /simulator/scenario another scenario, from the next request on; objects stay
POST /simulator/reset    everything is forgotten, and another scenario begins: as a new simulator, at the same address
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ftbridge.errors import UsageError
from ftbridge.server.api import files
from ftbridge.server.http.errors import invalid
from ftbridge.server.http.validation import RequestBody, body, document
from ftbridge.server.service import Service
from ftbridge.server.simulator.engine import ScriptedEngine
from ftbridge.server.simulator.scenario import Scenario, understand


class Clock:
    """Unix seconds that can be moved forward."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.ahead = 0.0

    def __call__(self) -> float:
        """The time."""
        return self._now() + self.ahead


class Advance(RequestBody):
    """How far to move the clock, in seconds."""

    advance: float = Field(ge=0, le=365 * 24 * 3600)


def routes() -> list[Route]:
    """The routes of this page."""
    return [
        Route("/simulator", show, methods=["GET"]),
        Route("/simulator/clock", clock, methods=["POST"]),
        Route("/simulator/scenario", scenario, methods=["PUT"]),
        Route("/simulator/bodies", bodies, methods=["GET"]),
        Route("/simulator/reset", reset, methods=["POST"]),
    ]


async def show(request: Request) -> Response:
    """What happened so far."""
    return JSONResponse(summary(request.app.state.service))


def summary(service: Service) -> dict[str, object]:
    """Requests by route, faults met, and what is in the books."""
    faults, engine = service.faults, service.engine
    assert faults is not None
    return {
        "requests": dict(faults.requests),
        "faults": faults.met,
        "jobs": [job.document for job in service.store.every("job")],
        "files": [file.document for file in service.store.every("file")],
        "most_answering": engine.most_answering if isinstance(engine, ScriptedEngine) else None,
        "ledger": service.account.ledger if service.account is not None else [],
    }


async def clock(request: Request) -> Response:
    """Move the clock forward."""
    request_body = await body(request, Advance)
    service: Service = request.app.state.service
    if not isinstance(service.clock, Clock):
        raise invalid("This server's clock cannot be moved.")
    service.clock.ahead += request_body.advance
    service.engine.advance()
    return JSONResponse({"now": service.clock()})


async def bodies(request: Request) -> Response:
    """What clients sent."""
    service: Service = request.app.state.service
    assert service.faults is not None
    return JSONResponse([{"route": route, "body": content} for route, content in service.faults.bodies])


async def scenario(request: Request) -> Response:
    """Take another scenario."""
    chosen = await _chosen(request)
    take(request.app.state.service, chosen)
    return JSONResponse(chosen.model_dump(mode="json"))


async def reset(request: Request) -> Response:
    """Forget everything, and take another scenario. Refused with 400 for a scripted account, whose objects are its script."""
    service: Service = request.app.state.service
    chosen = await _chosen(request)
    if service.account is not None or chosen.account is not None:
        raise invalid("A simulator with an account cannot be reset; start another.", code="invalid_scenario")
    assert isinstance(service.engine, ScriptedEngine)
    await request.app.state.batches.stop()
    service.engine.forget()
    service.store.forget_all()
    files.tidy(service)
    if isinstance(service.clock, Clock):
        service.clock.ahead = 0.0
    service.salt = salt(chosen)
    take(service, chosen)
    return JSONResponse(chosen.model_dump(mode="json"))


async def _chosen(request: Request) -> Scenario:
    """The scenario in a request's body. Raises `ApiError` 400 for what is none."""
    try:
        return understand(await document(request))
    except UsageError as error:
        raise invalid(error.message, code="invalid_scenario") from None


def salt(scenario: Scenario) -> str:
    """What the ids of a simulator are made of."""
    return f"seed {scenario.seed}"


def take(service: Service, chosen: Scenario) -> None:
    """Play another scenario from now on."""
    assert service.faults is not None
    assert isinstance(service.engine, ScriptedEngine)
    service.faults.replace(chosen)
    service.engine.scenario = chosen
