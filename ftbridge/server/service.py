"""What the handlers of a server share: the store, the engine, the folder, the clock."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ftbridge.server.store import Store

if TYPE_CHECKING:
    from ftbridge.server.engine import ServingEngine
    from ftbridge.server.simulator.gate import AccountState
    from ftbridge.server.simulator.inject import Faults

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes; times in seconds. The defaults are OpenAI's published ones."""

    file: int = 512 << 20
    upload: int = 8 << 30
    part: int = 64 << 20
    batch_file: int = 200 << 20
    batch_lines: int = 50_000
    upload_seconds: int = 3600


@dataclass
class Service:
    """One server's state. `clock` gives Unix seconds; `salt` makes ids, which with the same salt come in the same order."""

    folder: Path
    store: Store
    engine: ServingEngine
    salt: str
    organization: str = "org-ftbridge"
    clock: Callable[[], float] = time.time
    limits: Limits = field(default_factory=Limits)
    faults: Faults | None = None
    account: AccountState | None = None
    """The scripted account, in a simulator that plays one."""
    judges: tuple[str, ...] = ()
    """Addresses that graders of clients may ask; the operator's, and none by default."""

    @property
    def files(self) -> Path:
        """Where contents are kept, each under its file's id."""
        return self.folder / "files"

    @property
    def incoming(self) -> Path:
        """Where contents are while they come in; emptied at the start."""
        return self.folder / "incoming"

    def now(self) -> int:
        """Unix seconds, whole, as OpenAI writes them."""
        return int(self.clock())

    def new_id(self, prefix: str, length: int = 24) -> str:
        """An id that was never given before: `file-…`, `ftjob-…`. Letters and digits only, so it is safe in a path."""
        number = self.store.count(prefix)
        digest = int.from_bytes(hashlib.sha512(f"{self.salt}:{prefix}:{number}".encode()).digest(), "big")
        letters = ""
        for _ in range(length):
            digest, remainder = divmod(digest, len(_LETTERS))
            letters += _LETTERS[remainder]
        return prefix + letters
