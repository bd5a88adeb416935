"""Lists of the service, page by page, that a killed process goes on with where it stopped.

    listing {name, generation, path}  ──▶  request  ──▶  00001.json (whole or absent)  ──▶  page {number, after, done}

A page that was stored is never fetched again: one whose line in the journal is missing is taken in as it lies there.
A refusal is written as `unseen` with the scope that is missing; taking the inventory again asks for it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftbridge import files
from ftbridge.migrate.client import Client, ServiceReply
from ftbridge.migrate.folder import Migration, safe_name

Cursor = Literal["after", "next_page"]


class Listing(BaseModel):
    """How far a list is. `after` is the cursor of the next page, `done` whether there is none; `refused` holds a refusal.

    `told` is what the responses told beside their bodies: organization, project, and `skew`, the service's clock minus this
    machine's in seconds.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    generation: int = 1
    source: str = ""
    pages: int = 0
    items: int = 0
    after: str | None = None
    done: bool = False
    refused: dict[str, Any] | None = None
    told: dict[str, Any] = {}


class Listings:
    """Every list of a migration, folded once from its journal and advanced with it."""

    def __init__(self, migration: Migration) -> None:
        self.migration = migration
        self._known: dict[tuple[str, int], Listing] = {}
        self._newest: dict[str, int] = {}
        for event in migration.of("listing", "page", "unseen"):
            self._apply(event.type, event.data)

    def get(self, name: str, generation: int | None = None) -> Listing | None:
        """The list of this name, in its newest generation unless another is named; None for one that was never begun."""
        return self._known.get((name, generation or self._newest.get(name, 1)))

    def best(self, name: str) -> Listing | None:
        """The newest generation that is complete, else the newest."""
        for generation in range(self._newest.get(name, 0), 0, -1):
            listing = self._known.get((name, generation))
            if listing is not None and listing.done:
                return listing
        return self.get(name)

    def names(self, kind: str) -> list[str]:
        """Names of lists of a kind: what stands before the first `:`."""
        return [name for name in self._newest if name.split(":", 1)[0] == kind]

    def items(self, name: str) -> Iterator[dict[str, Any]]:
        """Every item of a list, as the service wrote it; nothing for a list that is not there."""
        if (listing := self.best(name)) is not None:
            for number in range(1, listing.pages + 1):
                yield from _items(read_page(self._page(listing, number))["body"])

    def take(
        self,
        client: Client,
        name: str,
        path: str,
        params: dict[str, Any] | None = None,
        *,
        doing: str,
        limit: int | None = None,
        cursor: Cursor = "after",
        pages: int | None = None,
        fresh: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Listing:
        """Fetch what is missing of a list and return it: `limit` items a page, `pages` pages in all at most.

        `fresh` begins a new generation of a list that is complete; one that is half done is finished first, and one that
        ended at its `pages` goes on where more are wanted.
        """
        existing = self.get(name)
        goes_on = existing is not None and existing.after is not None and (pages is None or existing.pages < pages)
        if existing is not None and existing.done and not fresh and not goes_on:
            return existing
        if existing is None or existing.done or existing.refused is not None:
            renewed = existing is not None and existing.done and fresh
            generation = 1 if existing is None else existing.generation + int(renewed)
            self._write("listing", name=name, generation=generation, source=client.source.id, path=path)
        listing = self._adopt(name)
        while not listing.done and listing.refused is None:
            listing = self._next(client, listing, path, params or {}, doing, limit, cursor, pages)
            progress(listing.items)
        return listing

    def _next(
        self,
        client: Client,
        listing: Listing,
        path: str,
        params: dict[str, Any],
        doing: str,
        limit: int | None,
        cursor: Cursor,
        pages: int | None,
    ) -> Listing:
        query = dict(params)
        if limit is not None:
            query["limit"] = limit
        if listing.after is not None:
            query["after" if cursor == "after" else "page"] = listing.after
        reply = client.get(path, query, doing=doing)
        if reply.status == 400 and limit is not None:  # a service whose pages are shorter than asked for
            query.pop("limit")
            reply = client.get(path, query, doing=doing)
        if not reply.ok or not isinstance(reply.document.get("data"), list):
            return self._refuse(client, listing, reply)
        after, done = _cursor(reply.document, listing.after, cursor)
        if pages is not None and listing.pages + 1 >= pages:
            done = True
        identity = {"organization": client.organization, "project": client.project, "skew": client.skew}
        page = {
            "listing": listing.name,
            "after": listing.after,
            "next": after,
            "done": done,
            "told": identity,
            "body": reply.document,
        }
        files.write_json(self._page(listing, listing.pages + 1), page)
        return self._turn(listing, page)

    def _adopt(self, name: str) -> Listing:
        """The list, with pages that were stored before their lines in the journal were."""
        listing = self.get(name)
        assert listing is not None
        while not listing.done and (path := self._page(listing, listing.pages + 1)).exists():
            listing = self._turn(listing, read_page(path))
        return listing

    def _turn(self, listing: Listing, page: dict[str, Any]) -> Listing:
        self._write(
            "page",
            sync=False,  # the page itself is flushed, and is taken in again if this line is lost
            name=listing.name,
            generation=listing.generation,
            number=listing.pages + 1,
            items=len(_items(page["body"])),
            after=page["next"],
            done=page["done"],
            told=page["told"],
        )
        turned = self.get(listing.name)
        assert turned is not None
        return turned

    def _refuse(self, client: Client, listing: Listing, reply: ServiceReply) -> Listing:
        self._write(
            "unseen",
            name=listing.name,
            generation=listing.generation,
            status=reply.status,
            why=reply.reason or "the response contains no list",
            scope=reply.scope,
            source=client.source.id,
        )
        refused = self.get(listing.name)
        assert refused is not None
        return refused

    def _write(self, type: str, *, sync: bool = True, **data: Any) -> None:
        self._apply(type, self.migration.append(type, sync=sync, **data).data)

    def _apply(self, type: str, data: dict[str, Any]) -> None:
        name, generation = str(data["name"]), int(data["generation"])
        listing = self._known.get((name, generation)) or Listing(name=name, generation=generation)
        if type == "listing":
            listing = listing.model_copy(update={"source": data.get("source", ""), "refused": None, "done": False})
            self._newest[name] = max(generation, self._newest.get(name, 1))
        elif type == "page":
            items = listing.items + int(data["items"])
            update = {"pages": int(data["number"]), "items": items, "told": data.get("told") or {}}
            update |= {"after": data["after"], "done": data["done"]}
            listing = listing.model_copy(update=update)
        else:
            listing = listing.model_copy(update={"refused": data})
        self._known[(name, generation)] = listing

    def _page(self, listing: Listing, number: int) -> Path:
        kind, _, rest = listing.name.partition(":")
        folder = self.migration.path / "listings" / kind
        if rest:
            folder /= safe_name(rest)
        return folder / str(listing.generation) / f"{number:05}.json"


def read_page(path: Path) -> dict[str, Any]:
    """A stored page: {listing, after, next, done, told, body}."""
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in body.get("data") or () if isinstance(item, dict)]


def _cursor(body: dict[str, Any], before: str | None, cursor: Cursor) -> tuple[str | None, bool]:
    """The cursor of the next page, and whether this page is the last: one whose cursor does not move is."""
    if cursor == "next_page":
        after = body.get("next_page")
        return (str(after), False) if after and after != before else (None, True)
    items = _items(body)
    last = body.get("last_id") or (items[-1].get("id") if items else None)
    if not body.get("has_more") or not last or last == before:
        return None, True
    return str(last), False
