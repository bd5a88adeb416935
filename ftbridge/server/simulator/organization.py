"""Routes that only a scripted account has: stored completions with their inputs, and the administration API."""

from __future__ import annotations

import datetime
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.server.http import pages
from ftbridge.server.http.errors import invalid, not_found
from ftbridge.server.simulator.account import DAY
from ftbridge.server.simulator.seeding import completion_object, message_of
from ftbridge.server.store import StoredObject

if TYPE_CHECKING:
    from ftbridge.server.requests.chat import CreateChat
    from ftbridge.server.service import Service
    from ftbridge.server.simulator.gate import AccountState


async def list_completions(request: Request) -> Response:
    """List stored completions, oldest first, without their inputs."""
    service: Service = request.app.state.service
    where: dict[str, str | None] = {}
    allowed = {"model"}
    if (model := request.query_params.get("model")) is not None:
        where["$.model"] = model
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata[") and name.endswith("]") and '"' not in name:
            where[f'$.metadata."{name[len("metadata[") : -1]}"'] = value
            allowed.add(name)
    orders = {"asc": False, "desc": True}
    shown = pages.page(
        service.store,
        request,
        "completion",
        orders=orders,
        newest_first=False,
        where=where,
        allowed=frozenset(allowed),
    )
    return JSONResponse(shown)


async def retrieve_completion(request: Request) -> Response:
    """Retrieve a stored completion."""
    return JSONResponse(_completion(request).document)


async def list_messages(request: Request) -> Response:
    """List the input messages of a stored completion."""
    stored = _completion(request)
    store = request.app.state.service.store
    orders = {"asc": False, "desc": True}
    shown = pages.page(store, request, "message", parent=stored.id, orders=orders, newest_first=False)
    return JSONResponse(shown)


def keep(service: Service, chat: CreateChat, done: dict[str, Any], project: str | None) -> None:
    """Store a completion that was made with `store: true`, and its input."""
    shown = completion_object(
        done["id"],
        done["created"],
        done["model"],
        done["choices"][0]["message"],
        chat.metadata or {},
        chat.temperature,
    )
    shown["choices"], shown["usage"], shown["tools"] = done["choices"], done["usage"], chat.tools
    if chat.response_format is not None:
        shown["response_format"] = chat.response_format.model_dump(by_alias=True, exclude_none=True)
    with service.store.change():
        service.store.add(StoredObject("completion", done["id"], shown, {"project": project} if project else {}))
        for order, message in enumerate(chat.messages):
            service.store.add(message_of(done["id"], order, message))


async def usage(request: Request) -> Response:
    """Report the use of completions, a bucket a day, by the groups requested."""
    state = _state(request)
    query = request.query_params
    text = query.get("start_time", "")
    if not text.isdigit():
        raise invalid("Missing required parameter: 'start_time'.", "start_time", "missing_required_parameter")
    if query.get("bucket_width", "1d") != "1d":
        raise invalid("Only days are reported here.", "bucket_width", "invalid_value")
    limit = pages.number(query.get("limit"), "limit", 7, 31)
    groups = set(query.getlist("group_by[]") + query.getlist("group_by"))
    first = int(query["page"].removeprefix("page_")) if "page" in query else int(text) // DAY * DAY
    now = int(request.app.state.service.clock())
    starts = list(range(first, now + 1, DAY))
    shown = [_bucket(state, start, groups) for start in starts[:limit]]
    more = starts[limit] if len(starts) > limit else None
    page = f"page_{more}" if more is not None else None
    return JSONResponse({"object": "page", "data": shown, "has_more": page is not None, "next_page": page})


def _bucket(state: AccountState, start: int, groups: set[str]) -> dict[str, Any]:
    today = int(state.start) // DAY
    totals: dict[tuple[Any, ...], dict[str, Any]] = {}
    for use in state.account.use:
        if not use.first <= start // DAY - today <= use.last or use.requests == 0:
            continue
        labels = {"model": state.account.name_of(use.model), "project_id": use.project, "batch": use.batch}
        labels = {name: value if name in groups else None for name, value in labels.items()}
        total = totals.setdefault(
            tuple(labels.values()),
            {
                "object": "organization.usage.completions.result",
                "input_tokens": 0,
                "output_tokens": 0,
                "input_cached_tokens": 0,
                "num_model_requests": 0,
                "user_id": None,
                "api_key_id": None,
                **labels,
            },
        )
        total["input_tokens"] += use.requests * use.input_tokens
        total["output_tokens"] += use.requests * use.output_tokens
        total["num_model_requests"] += use.requests
    return {"object": "bucket", "start_time": start, "end_time": start + DAY, "results": list(totals.values())}


async def projects(request: Request) -> Response:
    """List projects."""
    state = _state(request)
    shown = [
        {
            "object": "organization.project",
            "id": id,
            "name": name,
            "created_at": int(state.start) - 400 * DAY,
            "archived_at": None,
            "status": "active",
        }
        for id, name in state.account.known_projects().items()
    ]
    return _listed(request, shown, 20)


async def rate_limits(request: Request) -> Response:
    """List the rate limits of a project."""
    state = _state(request)
    project = request.path_params["project_id"]
    if project not in state.account.known_projects():
        raise not_found("project", project, "project_id")
    shown = []
    for limit in state.account.limits:
        if limit.model != "*" and limit.project in (None, project):
            entry: dict[str, Any] = {"object": "project.rate_limit", "id": f"rl-{limit.model}"}
            entry |= {"model": state.account.name_of(limit.model)}
            entry |= {"max_requests_per_1_minute": limit.requests_per_minute}
            entry |= {"max_tokens_per_1_minute": limit.tokens_per_minute}
            if limit.requests_per_day is not None:
                entry["max_requests_per_1_day"] = limit.requests_per_day
            if limit.batch_queue_tokens is not None:
                entry["batch_1_day_max_input_tokens"] = limit.batch_queue_tokens
            shown.append(entry)
    return _listed(request, shown, 100)


def _listed(request: Request, shown: list[dict[str, Any]], default: int) -> Response:
    """A page of a list that is not in the store."""
    limit = pages.number(request.query_params.get("limit"), "limit", default, 100)
    after = request.query_params.get("after")
    ids = [entry["id"] for entry in shown]
    if after is not None and after not in ids:
        raise invalid(f"There is no object {after[:200]!r} to continue after.", "after", "invalid_cursor")
    rest = shown[ids.index(after) + 1 :] if after is not None else shown
    page = rest[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return JSONResponse({"object": "list", "data": page, **ends, "has_more": len(rest) > limit})


def shown_models(
    state: AccountState, stored_models: list[StoredObject], project: str | None, now: float
) -> list[dict[str, Any]]:
    """The tuned models that a project sees: its own, those shared with it, none that has stopped."""
    shown = []
    for one in stored_models:
        shared = project in state.account.behaviour(one.id).shared_with
        if project in (None, one.extra.get("project", project)) or shared:
            if state.stopped(one.id, now):
                continue
            day = state.account.shutdown(one.id, state.start)
            shown.append({**one.document, **({"shutdown_date": day.isoformat()} if day is not None else {})})
    return shown


def base_shutdowns(state: AccountState, models: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Base models with the account's shutdown dates, without those that have stopped."""
    shown = []
    for model in models:
        day = state.account.shutdown(model["id"], state.start)
        if day is not None and datetime.date(*time.gmtime(now)[:3]) >= day:
            continue
        shown.append({**model, **({"shutdown_date": day.isoformat()} if day is not None else {})})
    return shown


def _completion(request: Request) -> StoredObject:
    name = request.path_params["completion_id"]
    stored: StoredObject | None = request.app.state.service.store.get("completion", name)
    if stored is None:
        raise not_found("completion", name, "completion_id")
    return stored


def _state(request: Request) -> AccountState:
    state: AccountState | None = request.app.state.service.account
    assert state is not None
    return state


ROUTES: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
    ("GET", "/chat/completions", list_completions),
    ("GET", "/chat/completions/{completion_id}", retrieve_completion),
    ("GET", "/chat/completions/{completion_id}/messages", list_messages),
    ("GET", "/organization/usage/completions", usage),
    ("GET", "/organization/projects", projects),
    ("GET", "/organization/projects/{project_id}/rate_limits", rate_limits),
]
"""Method, path below /v1, handler."""
