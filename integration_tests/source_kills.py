"""Kills of the source at random moments: nothing may be lost, and little may be read again.

    python -m integration_tests.source_kills [--kills 50] [--seed 1]      (make kills-source)

Six incremental streams, two of them children, on four workers. Each attempt of a sync is killed some time after its
first record, and the next one begins with the last STATE of each stream that was printed. The platform of this campaign
is strict: what a killed attempt printed behind the last STATE of its stream is thrown away. In the end it must have
every record. What comes again after a kill is counted and bounded, and so is the number of records between two STATEs.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import orjson

from integration_tests.harness import Message, plain_environment
from integration_tests.rest_api import Answer, Api, Request, Source, configured, serving

WORKERS = 4
MOST_AGAIN = 10_000
PAGE = 1000
CUSTOMERS, ORDERS_EACH, NOTES_EACH = 300, 100, 10
DAYS, SALES_A_DAY = 30, 500
EVENTS, CHANGES = 60_000, 6000
LONGEST_ATTEMPT = 120.0
REQUEST_SECONDS = 0.003  # what an answer takes at least
# A month of windows with records and one without.
BEGIN = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2 * DAYS)
Row = dict[str, Any]


def row(number: int, seconds: int) -> Row:
    return {"id": number, "at": (BEGIN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")}


@dataclass
class Shop:
    """What the API has. Cursors have ties everywhere, and where no order is promised there is none."""

    dice: random.Random

    def __post_init__(self) -> None:
        self.customers = self._mixed([row(n, n // 3) for n in range(CUSTOMERS)])
        self.changes = self._mixed([row(n, n // 5) for n in range(CHANGES)])
        self.events = [row(n, n // 4) for n in range(EVENTS)]
        self.sales = [row(n, n // SALES_A_DAY * 86_400 + n % SALES_A_DAY) for n in range(DAYS * SALES_A_DAY)]
        self.orders = {c: self._mixed(self._of(c, ORDERS_EACH)) for c in range(CUSTOMERS)}
        self.notes = {c: self._mixed(self._of(c, NOTES_EACH)) for c in range(CUSTOMERS)}

    def ids(self) -> dict[str, set[int]]:
        """What must arrive, by stream."""
        flat = {"customers": self.customers, "changes": self.changes, "events": self.events, "sales": self.sales,
                "orders": chain(*self.orders.values()), "notes": chain(*self.notes.values())}  # fmt: skip
        return {name: {found["id"] for found in rows} for name, rows in flat.items()}

    def answers(self) -> dict[str, Answer]:
        whole = {"customers": self.customers, "changes": self.changes, "events": self.events, "sales": self.sales}
        of = {f"/customers/{c}/{name}": rows[c] for name, rows in (("orders", self.orders), ("notes", self.notes))
              for c in rows}  # fmt: skip
        return {path: paged(rows) for path, rows in ({f"/{name}": rows for name, rows in whole.items()} | of).items()}

    def _of(self, customer: int, count: int) -> list[Row]:
        return [row(customer * count + n, n // 2) for n in range(count)]

    def _mixed(self, rows: list[Row]) -> list[Row]:
        self.dice.shuffle(rows)
        return rows


def paged(rows: list[Row]) -> Answer:
    def answer(request: Request) -> list[Row]:
        time.sleep(REQUEST_SECONDS)
        since, until = request.query.get("since", ""), request.query.get("until", "9")
        start = int(request.query["offset"])
        return [found for found in rows if since <= found["at"] <= until][start : start + PAGE]

    return answer


def form(url: str) -> Row:
    cursor = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
    windows = {**cursor, "start": f"{BEGIN:%Y-%m-%d}", "end_param": "until", "step": "P1D"}
    parents = [{"stream": "customers", "field": "id", "as": "customer"}]
    plain = {"primary_key": ["id"], "incremental": cursor}
    children = [
        {"name": name, "path": f"/customers/{{{{ parent.customer }}}}/{name}", "parents": parents, **plain}
        for name in ("orders", "notes")
    ]
    return {
        "base_url": url,
        "num_workers": WORKERS,
        "pagination": {"pagination_type": "offset", "page_size": PAGE, "stop_when_shorter": True},
        "streams": [
            {"name": "customers", "path": "/customers", **plain},
            {"name": "changes", "path": "/changes", **plain},
            {"name": "events", "path": "/events", **plain, "incremental": {**cursor, "is_ascending": True}},
            {"name": "sales", "path": "/sales", **plain, "incremental": windows},
            *children,
        ],
    }


# One slice of each stream, in records: what a worker may have to read again.
SLICES = {"customers": CUSTOMERS, "changes": CHANGES, "events": EVENTS, "sales": SALES_A_DAY,
          "orders": ORDERS_EACH, "notes": NOTES_EACH}  # fmt: skip


def bound(stream: str) -> int:
    """The most records of a stream between two STATEs, and so the most that a kill makes come again."""
    return MOST_AGAIN if stream == "events" else max(MOST_AGAIN, WORKERS * SLICES[stream])


@dataclass
class Platform:
    """Keeps STATEs and what came before them, through all attempts of one sync."""

    states: dict[str, Message] = field(default_factory=dict)
    kept: dict[str, set[int]] = field(default_factory=dict)
    seen: dict[str, set[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, lines: Iterator[bytes]) -> Attempt:
        """Take what one attempt printed; a line without an end was cut by the kill."""
        found = Attempt()
        pending: dict[str, list[int]] = {}
        before = {name: set(ids) for name, ids in self.seen.items()}
        for line in lines:
            if not line.endswith(b"\n"):
                break
            message = orjson.loads(line)
            if message["type"] == "RECORD":
                name, number = message["record"]["stream"], message["record"]["data"]["id"]
                pending.setdefault(name, []).append(number)
                self.seen.setdefault(name, set()).add(number)
                found.again[name] += number in before.get(name, ())
            elif message["type"] == "STATE":
                name = message["state"]["stream"]["stream_descriptor"]["name"]
                self.states[name] = {k: v for k, v in message["state"].items() if not k.endswith("Stats")}
                ids = pending.pop(name, [])
                found.gap[name] = max(found.gap[name], len(ids))
                self.kept.setdefault(name, set()).update(ids)
                found.states += 1
        for name, ids in pending.items():
            found.gap[name] = max(found.gap[name], len(ids))
        found.unsaved = sum(map(len, pending.values()))
        return found


@dataclass
class Attempt:
    """Counts of one attempt: records that came again, the most records between STATEs, STATEs, records behind them."""

    again: Counter[str] = field(default_factory=Counter)
    gap: Counter[str] = field(default_factory=Counter)
    states: int = 0
    unsaved: int = 0


@dataclass
class Sync:
    """One sync that is killed ``kills`` times and then ends."""

    api: Api
    shop: Shop
    folder: Path
    dice: random.Random

    def run(self, kills: int) -> tuple[list[Attempt], list[str]]:
        """The attempts behind each kill, and what is wrong."""
        platform, attempts, problems = Platform(), [], []
        for number in range(kills + 1):
            delay = self.dice.uniform(0, 2.5) if number < kills else None
            with self._process(platform) as process:
                found = platform.attempt(_lines(process, delay))
            attempts.append(found)
            if process.wait() == 0:
                break
            if delay is None:
                problems.append(f"the last attempt ended with {process.returncode}")
        if attempts[-1].unsaved:
            problems.append(f"{attempts[-1].unsaved} records of a sync that ended well are behind the last STATE")
        for name, wanted in self.shop.ids().items():
            lost = len(wanted - platform.kept.get(name, set()))
            if lost:
                problems.append(f"{lost} of {len(wanted)} records of {name} are lost")
        problems += [
            f"{what} of {name}: {count}, more than {bound(name)}"
            for attempt in attempts
            for what, counts in (("records that came again", attempt.again), ("records between STATEs", attempt.gap))
            for name, count in counts.items()
            if count > bound(name)
        ]
        return attempts, problems

    @contextmanager
    def _process(self, platform: Platform) -> Iterator[subprocess.Popen[bytes]]:
        config = form(self.api.url)
        catalog = {"streams": [configured(stream) for stream in config["streams"]]}
        state = list(platform.states.values()) or None
        arguments = Source(self.folder).arguments("read", config, catalog=catalog, state=state)
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=plain_environment())
        try:
            yield process
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()


def _lines(process: subprocess.Popen[bytes], delay: float | None) -> Iterator[bytes]:
    """The process's lines; it is killed ``delay`` seconds after its first record."""
    assert process.stdout is not None  # made with a pipe
    timer = threading.Timer(LONGEST_ATTEMPT, process.kill)
    timer.start()
    is_waiting = delay is not None
    for line in process.stdout:
        if is_waiting and line.startswith(b'{"type":"RECORD"'):
            is_waiting = False
            timer.cancel()
            timer = threading.Timer(delay or 0.0, process.kill)
            timer.start()
        yield line
    timer.cancel()


def campaign(kills: int, seed: int, *, most_a_sync: int = 5) -> tuple[list[Attempt], list[str]]:
    """Syncs until there were so many kills."""
    dice = random.Random(seed)
    shop = Shop(dice)
    attempts: list[Attempt] = []
    problems: list[str] = []
    done = 0
    with serving(Api(shop.answers())) as api, tempfile.TemporaryDirectory(prefix="kills-") as folder:
        while done < kills and not problems:
            found, wrong = Sync(api, shop, Path(folder), dice).run(min(most_a_sync, kills - done))
            done += len(found) - 1
            attempts += found
            problems += wrong
            _print(found, done)
    return attempts, problems


def _print(attempts: list[Attempt], done: int) -> None:
    for before, after in pairwise(attempts):
        again = _listed(after.again)
        print(f"kill: {before.states} STATEs printed, {before.unsaved} records behind them; came again: {again}")
    print(f"{done} kills; most records between two STATEs: {_listed(_most(attempts))}", flush=True)


def _most(attempts: list[Attempt]) -> Counter[str]:
    most: Counter[str] = Counter()
    for attempt in attempts:
        most |= attempt.gap
    return most


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    attempts, problems = campaign(arguments.kills, arguments.seed)
    worst = max((sum(attempt.again.values()) for attempt in attempts), default=0)
    print("\n".join(problems) or f"No record was lost. The worst kill made {worst} records come again.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
