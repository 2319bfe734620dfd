"""What the headers of an answer say about the API's own rate limit. Pure, but for the clock of ``Gate``.

Known by themselves: ``Retry-After`` (RFC 9110: seconds or a date), ``X-RateLimit-Remaining`` and ``-Reset``,
``RateLimit-Remaining`` and ``-Reset``, and ``RateLimit`` of the IETF draft in both of its forms; others by the names
that the form gives. A reset is a number of seconds or a point in time (an epoch in seconds or milliseconds, a date).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from source_rest_api.errors import transient_error
from source_rest_api.form import SHARED, RateLimit

GATE = "gate"  # in what the components share
SHORTEST_WAIT = 0.1
FIRST_EPOCH = 1_000_000_000  # smaller numbers are seconds from now
FIRST_EPOCH_MS = 100_000_000_000
_REMAINING = ("X-RateLimit-Remaining", "X-Rate-Limit-Remaining", "RateLimit-Remaining")
_RESET = ("X-RateLimit-Reset", "X-Rate-Limit-Reset", "RateLimit-Reset")
_DRAFT = "RateLimit"
_DRAFT_REMAINING = re.compile(r"(?:\bremaining|;\s*r)\s*=\s*(\d+)", re.ASCII)
_DRAFT_RESET = re.compile(r"(?:\breset|;\s*t)\s*=\s*(\d+)", re.ASCII)

Headers = Mapping[str, str]


def retry_after(headers: Headers, now: float) -> float | None:
    """Seconds that ``Retry-After`` asks for; None without a usable one."""
    text = headers.get("Retry-After", "").strip()
    return _seconds(text, now, is_epoch_possible=False) if text else None


def remaining(headers: Headers, rule: RateLimit) -> int | None:
    """Requests that are left; None if the API does not say."""
    for name in filter(None, (rule.remaining_header, *_REMAINING)):
        text = headers.get(name, "").strip()
        if text.isdigit():
            return int(text)
    found = _DRAFT_REMAINING.search(headers.get(_DRAFT, ""))
    return int(found[1]) if found else None


def reset(headers: Headers, rule: RateLimit, now: float) -> float | None:
    """Seconds until requests are allowed again; None if the API does not say."""
    for name in filter(None, (rule.reset_header, *_RESET)):
        text = headers.get(name, "").strip()
        if text:
            return _seconds(text, now, is_epoch_possible=True)
    found = _DRAFT_RESET.search(headers.get(_DRAFT, ""))
    return float(found[1]) if found else None


def wait_asked(headers: Headers, rule: RateLimit, now: float) -> float | None:
    """Seconds until the next try of a request that was limited; None if the API does not say.

    A reset counts only if nothing is left: otherwise it is that of another limit, often an hour away.
    """
    after = retry_after(headers, now)
    if after is not None or remaining(headers, rule):
        return after
    return reset(headers, rule, now)


def is_limit(status: int, headers: Headers, rule: RateLimit) -> bool:
    """Whether an answer means "later". A 403 does if it says when, or that nothing is left, as GitHub's does."""
    if status in rule.status_codes:
        return True
    return status == 403 and ("Retry-After" in headers or remaining(headers, rule) == 0)


def _seconds(text: str, now: float, *, is_epoch_possible: bool) -> float | None:
    if text.replace(".", "", 1).isdigit():
        number = float(text)
        if is_epoch_possible and number >= FIRST_EPOCH_MS:
            number = number / 1000 - now
        elif is_epoch_possible and number >= FIRST_EPOCH:
            number -= now
        return max(SHORTEST_WAIT, number)
    try:
        return max(SHORTEST_WAIT, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None


class Gate:
    """Holds all workers back while the API has said that no requests are left. Thread-safe."""

    def __init__(
        self, rule: RateLimit, *, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ):
        self._rule = rule
        self._now = now
        self._sleep = sleep
        self._until = 0.0
        self._lock = threading.Lock()

    def learn(self, headers: Headers) -> None:
        """From the headers of a good answer."""
        if remaining(headers, self._rule) != 0:
            return
        wait = reset(headers, self._rule, self._now())
        if wait is not None:
            self.hold(wait)

    def hold(self, seconds: float) -> None:
        """Nobody asks before that."""
        with self._lock:
            self._until = max(self._until, self._now() + seconds)

    @classmethod
    def shared(cls, config: Mapping[str, Any], rule: RateLimit) -> Gate:
        """The one gate of a running source."""
        components: dict[str, Any] = config.get(SHARED, {})
        gate: Gate = components.setdefault(GATE, cls(rule))
        return gate

    def wait(self, stream: str) -> float:
        """Wait until requests are allowed; how long that took.

        Raises:
            AirbyteTracedException: a transient error if it would take longer than ``max_wait_seconds``.
        """
        with self._lock:
            left = self._until - self._now()
        if left <= 0:
            return 0.0
        check_wait(left, self._rule, f"Stream {stream!r}: the API has no requests left")
        self._sleep(left)
        return left


def check_wait(seconds: float, rule: RateLimit, problem: str) -> None:
    """Raise a transient error for a wait that is too long. What was read stays read: the state is kept."""
    if seconds > rule.max_wait_seconds:
        raise transient_error(
            f"{problem} for {seconds:.0f} seconds, which is longer than rate_limit.max_wait_seconds "
            f"({rule.max_wait_seconds}). The next sync goes on from the last state; run it later, or raise the limit."
        )
