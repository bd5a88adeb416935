"""How many rows run at once after memory ran out: half as many, and then more again, with care. Nothing here imports torch.

    rows
    n     ×                          ┌─ n is tried ── n is trusted: the limit may double
          │                    ┌─────┘
          │         ┌──────────┘         × memory ran out with n rows
    n/2   └─────────┘

The shape is that of TCP's window after a loss (halved, then half of the way back to where it was lost: Xu, Harfoush and Rhee,
"Binary increase congestion control", 2004).
"""

from __future__ import annotations

PATIENCE, MOST_PATIENCE = 16, 256
"""Passes after which the limit grows: at first, and after memory ran out again and again."""
TRIAL = 16
"""Times the patience before a number of rows that failed is tried again, and again before it is trusted."""


class RowLimit:
    """The most rows that may run at once, as far as memory that ran out has shown; `rows` is None before it ever did.

    A pass counts only if it ran as many rows as the limit allows: fewer rows prove nothing. With `patience` at 16:

        n rows run out of memory    n // 2 rows may run
        after 16 passes             twice as many, but no more than half of the way to n; so again, up to n - 1
        after 256 more              n rows are tried: rows may be shorter now, or other processes gone
        after 256 more              n rows are trusted; the limit doubles each 16 passes, until it holds nothing back

    When memory runs out after the limit grew, `patience` doubles, up to 256; when n rows are trusted, it is halved. So one
    failure is made up for within some hundred passes, and a number of rows that always fails is tried ever less often, in the
    end once in 4,096 passes, where reading all rows again costs some tens. Several failures on end, which halve the limit
    until rows fit, count as one.
    """

    def __init__(self) -> None:
        self.rows: int | None = None
        self.patience = PATIENCE
        self._failed: int | None = None
        self._passes = 0
        self._has_grown = False

    def at_most(self, max_rows: int) -> int:
        """How many rows may run where no more than `max_rows` ever may."""
        return max_rows if self.rows is None else min(max_rows, self.rows)

    def failed(self, rows: int) -> None:
        """Memory ran out in a pass of so many rows. A single row that fails says nothing about how many may run."""
        if rows < 2:
            return
        if self._has_grown:
            self.patience = min(2 * self.patience, MOST_PATIENCE)
        self._failed, self.rows = rows, rows // 2
        self._passes, self._has_grown = 0, False

    def passed(self, rows: int) -> None:
        """A pass of so many rows ended well."""
        if self.rows is None or rows < self.rows:
            return
        self._passes += 1
        if self._failed is None:
            self._grow(2 * self.rows, after=self.patience)
        elif self.rows + 1 < self._failed:
            self._grow(min(2 * self.rows, (self.rows + self._failed) // 2), after=self.patience)
        elif self.rows < self._failed:
            self._grow(self._failed, after=TRIAL * self.patience)
        elif self._passes >= TRIAL * self.patience:
            self.patience = max(self.patience // 2, PATIENCE)
            self._failed, self._passes = None, 0

    def _grow(self, rows: int, *, after: int) -> None:
        if self._passes >= after:
            self.rows, self._passes, self._has_grown = rows, 0, True
