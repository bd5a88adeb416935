"""Lists a page at a time: `after` is the id of the last object seen, `has_more` says whether anything follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from ftbridge.server.http.errors import invalid
from ftbridge.server.store import Store, StoredObject

PROJECT = "ftbridge.project"
"""Where a request's scope names the project that it sees; absent where there are no projects."""


def page(
    store: Store,
    request: Request,
    kind: str,
    *,
    parent: str = "",
    default: int = 20,
    most: int = 100,
    orders: Mapping[str, bool] | None = None,
    newest_first: bool = True,
    where: Mapping[str, str | None] | None = None,
    named_ends: bool = True,
    allowed: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """One page as OpenAI shapes it. Raises `ApiError` for an unknown parameter, a bad limit, or a cursor that is not an object.

    `orders` maps the words of `order` to whether they mean newest first; `named_ends` adds first_id and last_id.
    """
    query = request.query_params
    allowed_names = {"after", "limit", *(("order",) if orders else ()), *allowed}
    for name in query:
        if name not in allowed_names:
            raise invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if orders and (order := query.get("order")) is not None:
        if order not in orders:
            raise invalid(f"'order' must be {' or '.join(orders)}.", "order", "invalid_value")
        newest_first = orders[order]
    limit = number(query.get("limit"), "limit", default, most)
    records = store.page(
        kind,
        parent=parent,
        after=query.get("after"),
        limit=limit + 1,
        newest_first=newest_first,
        where=where,
        project=request.scope.get(PROJECT),
    )
    if records is None:
        raise invalid(f"There is no object {query['after'][:200]!r} to continue after.", "after", "invalid_cursor")
    return listing(records[:limit], len(records) > limit, named_ends=named_ends)


def listing(records: list[StoredObject], has_more: bool, *, named_ends: bool = True) -> dict[str, Any]:
    """The list object."""
    shown: dict[str, Any] = {"object": "list", "data": [record.document for record in records], "has_more": has_more}
    if named_ends:
        shown |= {"first_id": records[0].id if records else None, "last_id": records[-1].id if records else None}
    return shown


def number(text: str | None, name: str, default: int, most: int) -> int:
    """A whole number of 1 to `most` in a query."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise invalid(f"'{name}' must be a whole number from 1 to {most:,}.", name, "invalid_value")
    return int(text)
