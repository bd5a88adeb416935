"""What questions to judges may cost: none is asked that would pass the budget."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterable

from ftbridge.graders.calls import CallRecord
from ftbridge.graders.chat import JudgeResponse
from ftbridge.prices import PriceList, load_prices


class JudgeBudget:
    """Lets judges be asked while the budget bears it, from several threads at once (`ftbridge.graders.calls.Meter`).

    The first question is asked alone. From then on as many are under way as the room left pays for at the dearest reply so far;
    none is asked that would pass `limit` at that price. `before` (US dollars) is what was spent beside the replies in
    `earlier`.
    """

    def __init__(
        self,
        limit: float,
        before: float = 0.0,
        *,
        on_used_up: Callable[[str], Exception],
        prices: PriceList | None = None,
        earlier: Iterable[CallRecord] = (),
    ) -> None:
        self._limit, self._on_used_up, self._prices = limit, on_used_up, prices or load_prices()
        replies = [(call, call.reply) for call in earlier if call.reply is not None]
        self._prices_paid = [call_usd(self._prices, call.model, call.endpoint, reply) or 0.0 for call, reply in replies]
        self._before = before + sum(self._prices_paid)
        self._paid = self._dearest = 0.0
        self._under_way = self._answered = 0
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def before(self) -> None:
        """Wait until one more question may be asked; raise what `on_used_up` returns when the budget is used up."""
        with self._changed:
            while self._under_way and not self._has_room():
                self._changed.wait()
            spent = self._before + self._paid
            if spent >= self._limit or (self._answered and not self._has_room()):
                if self._error is None:
                    paid = f"about ${spent:.2f}, ${self._paid:.2f} of it for judges just now"
                    more = (
                        ""
                        if spent >= self._limit
                        else f", and another request to a judge may cost ${self._dearest:.2f}"
                    )
                    self._error = self._on_used_up(f"budget.max_usd = {self._limit:g} is used up ({paid}{more})")
                raise self._error
            self._under_way += 1

    def hold(self, questions: int) -> None:
        """Raise what `on_used_up` returns unless so many more questions fit, at the mean price of a reply so far.

        For work that is to be done whole or not at all. Before the first reply nothing is known, and nothing is raised while
        there is money left.
        """
        with self._changed:
            spent = self._before + self._paid
            price = statistics.mean(self._prices_paid) if self._prices_paid else 0.0
            if questions and (spent >= self._limit or spent + questions * price > self._limit):
                raise self._on_used_up(
                    f"budget.max_usd = {self._limit:g} would be exceeded: about ${spent:.2f} is spent, and "
                    f"{questions:,} more requests to judges would cost about ${questions * price:.2f}"
                )

    def after(self, call: CallRecord | None) -> None:
        """Count what a question cost."""
        usd = 0.0
        if call is not None and call.reply is not None:
            usd = call_usd(self._prices, call.model, call.endpoint, call.reply) or 0.0
        with self._changed:
            self._under_way -= 1
            self._answered += call is not None
            self._paid += usd
            self._dearest = max(self._dearest, usd)
            if call is not None:
                self._prices_paid.append(usd)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if not self._answered:
            return False
        return self._before + self._paid + (self._under_way + 1) * self._dearest <= self._limit


def call_usd(prices: PriceList, model: str, endpoint: str, reply: JudgeResponse) -> float | None:
    """What one question cost; all tokens at the price of written ones, the higher, where only their sum is told."""
    read, written = reply.prompt_tokens, reply.completion_tokens
    if read is None or written is None:
        read, written = 0, reply.tokens
    usd = prices.judge_usd(model, endpoint, read, written or 0)
    return None if usd and written is None else usd
