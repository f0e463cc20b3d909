"""What requests cost, how many there may be, and how fast they follow each other. A ledger file remembers it between runs. No torch.

A request counts when it was sent. What it cost follows from the tokens that the endpoint tells; where it tells none, from an estimate that
errs upwards: a token per byte of text, `PICTURE_TOKENS` per picture; of thoughts that it hides nothing can be known. A request that got an
error is free; one whose answer was lost on the way counts as if it had been answered at length. Before a request, what it may cost is set
aside in the same way, so that threads do not spend the same money twice; only an answer longer than any before it can pass the limit.
A request that is under way when the process is killed is not in the ledger. One run at a time uses a ledger.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mask2dit.chat import Request, Size
from mask2dit.curation.captioners.base import CaptionerStoppedError
from mask2dit.errors import InputError

LEDGER = "requests.jsonl"
PICTURE_TOKENS = 3000  # Gemini takes 258 for one of 768 pixels, patches of 28 pixels make 752 of it
ANSWER_TOKENS = 1000  # set aside until a longer answer was seen


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits over everything that was ever spent by the same ledger; None: no limit. Prices are per million tokens."""

    max_requests: int | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        if self.max_requests is not None and self.max_requests < 0:
            raise InputError(f"--max-requests: got {self.max_requests}, expected 0 or more; give another number")
        for name, value in (("max-cost", self.max_cost), ("price-in", self.price_in), ("price-out", self.price_out)):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"--{name}: got {value:g}, expected 0 or more; give another number")
        if self.requests_per_minute is not None and not 0 < self.requests_per_minute < math.inf:
            raise InputError(f"--requests-per-minute: got {self.requests_per_minute:g}, expected more than 0; give another number")
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise InputError("--max-cost: got no prices to count it by, expected --price-in and --price-out per million tokens; give both")

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(slots=True)
class Totals:
    """Sums over requests. `estimated`: how many of them were counted without the endpoint's word; `cost`: None without prices."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0
    cost: float | None = None


class Spending:
    """Counts the requests of one ledger; `request` is a meter for a chat client. May be used from any number of threads.

    `clock` and `sleep` pace the requests, `now` dates them, in seconds since 1970.
    """

    def __init__(
        self,
        ledger: Path,
        model: str,
        budget: Budget,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.ledger, self.model, self.budget = ledger, model, budget
        self._clock, self._sleep, self._now = clock, sleep, now
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._ever, self._this_run = Totals(), 0
        self._under_way, self._set_aside, self._longest = 0, 0.0, ANSWER_TOKENS
        self._next_start = -math.inf
        self._read()

    @contextmanager
    def request(self, size: Size) -> Iterator[Request]:
        """Around a try: waits for its turn, and writes it down afterwards. Raises CaptionerStoppedError where no more may be spent."""
        aside = self._reserve(size)
        request = Request()
        try:
            self._await_turn()
            yield request
        finally:
            self._settle(size, request, aside)

    @property
    def totals(self) -> Totals:
        """Over everything that was ever spent by this ledger."""
        with self._lock:
            return replace(self._ever)

    @property
    def requests_now(self) -> int:
        """Requests of this run."""
        return self._this_run

    def _reserve(self, size: Size) -> float:
        """Set money aside; where it is short, wait for requests under way, which mostly cost less than was set aside for them."""
        with self._settled:
            while problem := self._lacking(size):
                if not self._under_way:
                    raise CaptionerStoppedError(problem)
                self._settled.wait()
            aside = self._most_cost(size)
            self._under_way += 1
            self._set_aside += aside
        return aside

    def _lacking(self, size: Size) -> str:
        """Why there may not be another request now, or ""."""
        budget, made, spent = self.budget, self._ever.requests, self._ever.cost or 0.0
        if budget.max_requests is not None and made + self._under_way >= budget.max_requests:
            return f"captions: {made} requests were made, as many as --max-requests {budget.max_requests} allows; raise it to go on"
        if budget.max_cost is not None and spent + self._set_aside + self._most_cost(size) > budget.max_cost:
            return (
                f"captions: {spent:.4g} are spent, and the next request may cost {self._most_cost(size):.2g}, "
                f"which is more than --max-cost {budget.max_cost:g} allows; raise it to go on"
            )
        return ""

    def _most_cost(self, size: Size) -> float:
        return self.budget.cost(_upper_estimate(size), self._longest) or 0.0

    def _await_turn(self) -> None:
        if self.budget.requests_per_minute is None:
            return
        with self._lock:
            now = self._clock()
            start = max(now, self._next_start)
            self._next_start = start + 60 / self.budget.requests_per_minute
        if start > now:
            self._sleep(start - now)

    def _settle(self, size: Size, request: Request, aside: float) -> None:
        with self._lock:
            self._settled.notify_all()
            self._under_way -= 1
            self._set_aside = self._set_aside - aside if self._under_way else 0.0
            if request.outcome == "unsent":
                return
            tokens_in, tokens_out, estimated = 0, 0, False
            if request.outcome != "refused":
                estimated = request.tokens_in is None or request.tokens_out is None
                written = self._longest if request.outcome == "lost" else request.text
                tokens_in = _upper_estimate(size) if request.tokens_in is None else request.tokens_in
                tokens_out = written if request.tokens_out is None else request.tokens_out
            row = {
                "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds"),
                "model": self.model,
                "outcome": request.outcome,
                "tokens_in": tokens_in,
                "tokens_out": tokens_out,
                "estimated": estimated,
                "cost": self.budget.cost(tokens_in, tokens_out),
            }
            self._this_run += 1
            self._add(row)
            self._append(json.dumps(row))

    def _add(self, row: dict[str, Any]) -> None:
        ever, tokens_in, tokens_out, estimated = self._ever, int(row["tokens_in"]), int(row["tokens_out"]), bool(row["estimated"])
        cost = row["cost"] if row["cost"] is not None else self.budget.cost(tokens_in, tokens_out)  # it may have had no price then
        ever.cost = ever.cost if cost is None else (ever.cost or 0.0) + float(cost)
        ever.requests += 1
        ever.tokens_in += tokens_in
        ever.tokens_out += tokens_out
        ever.estimated += estimated
        self._longest = max(self._longest, tokens_out)

    def _append(self, line: str) -> None:
        try:
            self.ledger.parent.mkdir(parents=True, exist_ok=True)
            with self.ledger.open("ab") as file:
                file.write(f"{line}\n".encode())
        except OSError as error:
            raise CaptionerStoppedError(
                f"{self.ledger}: cannot be written ({error.strerror or error}), and nothing is spent without it; make room"
            ) from None

    def _read(self) -> None:
        """Damaged lines count as requests of unknown cost; one that was cut off gets an end, so that the next stands by itself."""
        self._ever.cost = self.budget.cost(0, 0)
        try:
            content = self.ledger.read_bytes()
            if content and not content.endswith(b"\n"):
                with self.ledger.open("ab") as file:
                    file.write(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.ledger}: cannot be read ({error.strerror or error}), expected what was spent; see to it") from None
        for line in content.splitlines():
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                self._ever.requests += 1


def _upper_estimate(size: Size) -> int:
    return size.text + PICTURE_TOKENS * size.pictures
