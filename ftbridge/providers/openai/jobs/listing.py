"""Lists of a service, page by page, that end however a service pages.

A cursor that does not move (a gateway that does not pass `after` on, `has_more` that is always true) ends the list: a page
with items from before its cursor is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ftbridge.providers.openai.errors import require_fields

MOST_PAGES = 1000


def items_of(page_after: Callable[[dict[str, Any]], Any]) -> Iterator[Any]:
    """Every item of a list, once. `page_after` makes one request with these parameters: {} or {"after": ID}.

    Items without an id come from the first page only: there is nothing to go on from. Raises `NotTheService`.
    """
    seen: set[str] = set()
    parameters: dict[str, Any] = {}
    for _ in range(MOST_PAGES):
        page = require_fields(page_after(parameters), "data")
        head = getattr(page.data[0], "id", None) if page.data else None
        earlier = seen - {head} if head == parameters.get("after") else seen  # some services tell each item twice
        if any(getattr(item, "id", None) in earlier for item in page.data):
            return  # the cursor did not move: what is new here came meanwhile, and is first in the next list
        fresh = []
        for item in page.data:
            name = getattr(item, "id", None)
            if name is None and not parameters:
                fresh.append(item)
            elif name is not None and name not in seen:
                seen.add(name)
                fresh.append(item)
        yield from fresh
        last = getattr(page.data[-1], "id", None) if page.data else None
        if not fresh or last is None or getattr(page, "has_more", None) is False:
            return
        parameters = {"after": last}
