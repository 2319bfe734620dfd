"""Kill -9 at named steps and at random moments; a platform that forgets the last STATEs; every row compared.

The lake kills the process before or after it does what a request asks, so the product has no switch for it. After each
kill the source sends again what lies behind the last STATE that the platform kept, as a retry does.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from integration_tests.harness import FINAL, House, Message, Result, Watcher, catalog, record, state

ROWS, EVERY = 24, 4
OVERWRITE: dict[str, Any] = {"mode": "overwrite", "sync_mode": "full_refresh"}
STEPS = [
    ("open", "s3:PutObject", "/log/00000000000000000005"),
    ("heartbeat", "s3:PutObject", "/writers/"),
    ("create upload", "s3:CreateMultipartUpload", ""),
    ("upload part", "s3:UploadPart", ""),
    ("replay hashes", "s3:PutObject", "/replay/"),
    ("commit entry", "s3:PutObject", "/log/00000000000000000006"),
    ("complete", "s3:CompleteMultipartUpload", ""),
    ("close", "s3:PutObject", "/log/00000000000000000007"),
]
SWAP_STEPS = [
    ("swap entry", "s3:PutObject", "/log/00000000000000000007"),
    ("update table", "glue:UpdateTable", ""),
    ("published", "s3:PutObject", "/log/00000000000000000008"),
]
CONFIG = {"target_file_mb": 1, "max_commit_interval_s": 1}


class Platform:
    """Keeps the last STATE, and may lose the newest few with the pod."""

    def __init__(self, house: House, *, forgets: random.Random):
        self._house = house
        self._forgets = forgets
        self.kept = 0
        self.kills = 0

    def input(self, *, finishes: bool = True) -> list[Message]:
        """What the source sends in this try: its input STATE, then every row behind it."""
        out: list[Message] = [state({"c": self.kept})] if self.kept else []
        for number in range(self.kept + 1, ROWS + 1):
            out.append(record(number))
            if number % EVERY == 0:
                out.append(state({"c": number}))
        return out

    def took(self, result: Result) -> None:
        reached = [data["c"] for data in result.states]
        lost = self._forgets.randint(0, 3) if result.exit_code else 0
        kept = reached[: len(reached) - lost]
        self.kept = max([self.kept, *kept])
        self.kills += result.exit_code == -signal.SIGKILL


def killer(house: House, step: str, match: str, when: str) -> Callable[[int], None]:
    def arm(pid: int) -> None:
        house.lake.faults(at={"step": step, "match": match, "when": when, "do": "kill", "pid": pid})

    return arm


def after(seconds: float) -> Callable[[int], None]:
    def arm(pid: int) -> None:
        def kill() -> None:
            time.sleep(seconds)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()

    return arm


def watching(house: House, views: list[tuple[int, ...]]) -> Watcher:
    """Looks at the table through Glue, and notes what it saw."""

    def look() -> None:
        if house.has_table():
            views.append(tuple(house.ids()))

    return Watcher(look, pause=0.05)


def append_until_done(house: House, arm: Callable[[int], None], platform: Platform) -> None:
    """One try that is killed, then tries until one ends well."""
    config = house.config(**CONFIG)
    platform.took(house.write(platform.input(), config=config, on_start=arm))
    house.lake.faults(at=None)
    for _ in range(3):
        result = house.write(platform.input(), config=config)
        platform.took(result)
        if result.exit_code == 0:
            return
    raise AssertionError(result.stdout)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "step", "match"), STEPS, ids=[step[0] for step in STEPS])
def test_an_append_killed_at_a_step_has_every_row_once(house: House, name: str, step: str, match: str, when: str):
    platform = Platform(house, forgets=random.Random(f"{name}{when}"))
    house.write([record(0), state({"c": 0})], config=house.config(**CONFIG))
    views: list[tuple[int, ...]] = []
    with watching(house, views):
        append_until_done(house, killer(house, step, match, when), platform)
    assert platform.kills == 1, "the step was not reached"
    assert house.ids() == list(range(ROWS + 1))
    assert house.uploads() == []
    assert all(len(set(view)) == len(view) and view == tuple(range(len(view))) for view in views)


def test_an_append_killed_between_its_states_has_every_row_once(house: House):
    """STATEs were flushed, and the platform lost the newest of them together with us."""
    for lost in (1, 2):
        stream = f"lost_{lost}"
        first = house.write([m for n in range(1, 13) for m in rows_and_state(n, stream)], catalog(stream))
        assert first.exit_code == 0
        kept = 12 - 4 * lost
        retry = [state({"c": kept}, stream)]
        retry += [m for n in range(kept + 1, 17) for m in rows_and_state(n, stream)]
        result = house.write(retry, catalog(stream))
        assert result.exit_code == 0
        assert house.ids(stream) == list(range(1, 17))
        assert result.of("STATE")[0]["state"]["destinationStats"]["recordCount"] == 0.0
        assert sum(s["state"]["destinationStats"]["recordCount"] for s in result.of("STATE")) == 16 - kept


def test_a_retry_that_stored_nothing_proves_its_states_all_the_same(house: House):
    """The first run's STATEs were lost; the second dropped every row as a replay, ended well, and lost its last."""
    everything = [m for n in range(1, 13) for m in rows_and_state(n, "orders")]
    house.write(everything, on_start=killer(house, "s3:PutObject", "/log/00000000000000000004", "before"))
    house.lake.faults(at=None)
    again = house.write(everything)
    assert again.exit_code == 0
    assert [s["c"] for s in again.states] == [4, 8, 12]
    rest = [m for n in range(5, 17) for m in rows_and_state(n, "orders")]
    third = house.write([state({"c": 4}), *rest])
    assert third.exit_code == 0
    assert house.ids() == list(range(1, 17))


def rows_and_state(number: int, stream: str) -> list[Message]:
    return [record(number, stream), *([state({"c": number}, stream)] if number % 4 == 0 else [])]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "step", "match"), [*STEPS[:7], *SWAP_STEPS], ids=[step[0] for step in [*STEPS[:7], *SWAP_STEPS]]
)
def test_an_overwrite_killed_at_a_step_is_the_old_or_the_new_table(
    house: House, name: str, step: str, match: str, when: str
):
    old, new = tuple(range(100, 105)), tuple(range(ROWS))
    config = catalog(**OVERWRITE)
    assert house.write([*map(record, old), state({**FINAL, "run_id": "old"})], config).exit_code == 0
    # the first sync's entries: open, swap, published of the empty table; commit, swap, published; close
    shifted = match
    if "/log/" in match:
        shifted = f"/log/{int(match[-20:]) + 2:020d}"
    messages = [*map(record, new), state({**FINAL, "run_id": "new"})]
    views: list[tuple[int, ...]] = []
    with watching(house, views):
        killed = house.write(messages, config, on_start=killer(house, step, shifted, when))
        house.lake.faults(at=None)
        assert killed.exit_code == -signal.SIGKILL, f"{name} was not reached"
        assert tuple(house.ids()) in (old, new)
        retry = house.write(messages, config)
    assert retry.exit_code == 0, retry.stdout
    assert retry.states == [{**FINAL, "run_id": "new"}]
    assert tuple(house.ids()) == new
    assert set(views) <= {old, new}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments_with_a_faulty_lake_lose_and_double_nothing(house: House, seed: int):
    """Two kills a run; 5 % rejected requests, 2 % lost answers, 10 % Glue faults."""
    dice = random.Random(seed)
    platform = Platform(house, forgets=dice)
    house.lake.faults(reject=0.05, lose=0.02, glue=0.1, seed=seed)
    config = house.config(**CONFIG)
    for _ in range(12):
        platform.took(house.write(platform.input(), config=config, on_start=after(dice.uniform(0.3, 1.3))))
        if platform.kills == 2:
            break
    assert platform.kills == 2
    house.lake.faults(reject=0.0, lose=0.0, glue=0.0)
    result: Any = house.write(platform.input(), config=config)
    assert result.exit_code == 0, result.stdout
    assert house.ids() == list(range(1, ROWS + 1))
    assert house.uploads() == []
