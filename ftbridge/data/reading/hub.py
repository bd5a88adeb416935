"""Datasets on the Hugging Face hub: which files an hf:// address names, and where they are downloaded from.

    hf://datasets/OWNER/NAME/FILE[@REVISION]      one file
    hf://datasets/OWNER/NAME/data/*.parquet       every file that matches
    hf://datasets/OWNER/NAME                      the data file, if the repository has only one

Listing uses the hub's published API (GET /api/datasets/OWNER/NAME/revision/REVISION, `siblings`).
`HF_ENDPOINT` and `HF_TOKEN` are respected.
"""

from __future__ import annotations

import fnmatch
import os
import re
from typing import Any
from urllib.parse import quote

from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.http import Policy, backoff, is_transient, retrying

_DATA = re.compile(r"\.(jsonl|ndjson|json|csv|tsv|tab|parquet)(\.gz|\.zst)?$", re.IGNORECASE)
_ABOUT = re.compile(r"(^|/)(dataset_infos?|dataset_dict|state|config|package)\.json$")
_SHOWN = 10
_TRIES, _LONGEST_WAIT = 3, 5.0
"""Tries of one listing, and seconds between two of them at most."""


def dataset_files(address: str) -> list[tuple[str, str]]:
    """Label and download address of each file. Raises `UsageError` for what is not an address, or names no file or too many."""
    match = re.fullmatch(r"hf://datasets/([^/@]+)/([^/@]+?)(?:/([^@]*))?(?:@([^@]+))?", address)
    if not match or match[1] in (".", ".."):
        raise UsageError(
            f"{address}: write it as hf://datasets/OWNER/NAME/path/to/file.jsonl, and @REVISION if wanted."
        )
    owner, name, path, revision = match[1], match[2], (match[3] or "").strip("/"), match[4]
    repository = f"{_endpoint()}/datasets/{owner}/{name}/resolve/{quote(revision or 'main', safe='')}"

    def named_address(file: str) -> tuple[str, str]:
        at = f"@{revision}" if revision else ""
        return f"hf://datasets/{owner}/{name}/{file}{at}", f"{repository}/{quote(file)}"

    if path and not any(letter in path for letter in "*?["):
        return [named_address(path)]
    listed = _listed(address, f"{owner}/{name}", revision or "main")
    if path:
        if files := [file for file in listed if fnmatch.fnmatchcase(file, path)]:
            return [named_address(file) for file in files]
        raise UsageError(f"{address}: no file matches.", hint=_there(listed))
    data = [file for file in listed if _DATA.search(file) and not _ABOUT.search(file)]
    if len(data) == 1:
        return [named_address(data[0])]
    if not data:
        raise UsageError(f"{address} has no data file of a known format.", hint=_there(listed))
    shown = "\n".join(f"  {named_address(file)[0]}" for file in data[:_SHOWN])
    more = f"\n  … and {len(data) - _SHOWN:,} more" if len(data) > _SHOWN else ""
    raise UsageError(
        f"{address} has {len(data)} data files:\n{shown}{more}",
        hint="Name one, or several with a pattern such as /*.parquet.",
    )


def hub_headers(label: str) -> dict[str, str]:
    """The token for what comes from the hub, and nothing for any other address."""
    token = os.environ.get("HF_TOKEN") if label.startswith("hf://") else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _listed(address: str, repository: str, revision: str) -> list[str]:
    """Every file of a dataset repository, sorted."""
    import httpx  # takes 0.1 s, which only downloads should wait for

    url = f"{_endpoint()}/api/datasets/{repository}/revision/{quote(revision, safe='')}"

    def ask() -> httpx.Response:
        response = httpx.get(url, headers=hub_headers(address), follow_redirects=True, timeout=30)
        if is_transient(response.status_code):
            raise httpx.TransportError(f"the hub answered {response.status_code}")
        return response

    policy = Policy(
        doing=f"listing {address}",
        again=lambda error: isinstance(error, httpx.TransportError),
        attempts=_TRIES,
        wait=lambda attempt, _error: backoff(attempt, ceiling=_LONGEST_WAIT),
    )
    try:
        response = retrying(policy)(ask)
    except httpx.TransportError as error:
        raise FtbridgeError(
            f"{address}: the hub could not be asked for its files in {_TRIES} tries: {error}.",
            hint="Name the file, or try again later.",
        ) from None
    if response.status_code in (401, 403):
        raise UsageError(f"{address}: the hub refuses access.", hint="Set HF_TOKEN to a token that may read it.")
    if response.status_code >= 400:
        raise UsageError(
            f"{address}: the hub answered {response.status_code}.", hint="Check the name and the revision."
        )
    try:
        listing: Any = response.json()
        return sorted(str(sibling["rfilename"]) for sibling in listing["siblings"])
    except (ValueError, KeyError, TypeError):
        raise FtbridgeError(f"{address}: the hub's response cannot be read.", hint="Name the file.") from None


def _there(listed: list[str]) -> str:
    more = ", …" if len(listed) > _SHOWN else ""
    return f"It holds {', '.join(listed[:_SHOWN])}{more}." if listed else "It contains no file."
