"""What stopped on the way goes on where it was: a part of ``make kills-source``, and slices that fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration_tests.rest_api import Api, Request, Response, Source, kept, records, serving
from integration_tests.source_kills import campaign

CURSOR = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
DAYS = [f"{datetime.now(UTC) - timedelta(days=10 - number):%Y-%m-%d}" for number in range(8)]
WINDOWS = {**CURSOR, "start": DAYS[1], "end_param": "until", "step": "P1D", "request_format": "%Y-%m-%d"}


@pytest.mark.slow
def test_kills_lose_no_record_and_little_is_read_again():
    attempts, problems = campaign(4, seed=7)
    assert problems == []
    assert sum(attempt.states for attempt in attempts) > 20
    assert any(attempt.again for attempt in attempts)


def test_slices_that_failed_are_read_by_the_next_sync_and_the_others_not_again(tmp_path: Path):
    failing: set[Any] = set()

    def child(request: Request) -> Any:
        parent = int(request.path.split("/")[2])
        if parent in failing:
            return Response(b"{}", 500)
        return [{"id": parent * 10 + day, "at": f"{DAYS[day]}T00:00:00Z"} for day in (1, 2, 3)]

    def window(request: Request) -> Any:
        if request.query["since"] in failing:
            return Response(b"{}", 500)
        days = [day for day in range(1, 8) if request.query["since"] <= DAYS[day] <= request.query["until"]]
        return [{"id": day, "at": f"{DAYS[day]}T05:00:00Z"} for day in days]

    answers = {"/parents": lambda request: [{"id": number} for number in range(6)], "/windows": window}
    with serving(Api({**answers, **{f"/parents/{number}/children": child for number in range(6)}})) as api:
        streams = [
            {"name": "parents", "path": "/parents"},
            {"name": "children", "path": "/parents/{{ parent.id }}/children", "incremental": CURSOR,
             "parents": [{"stream": "parents", "field": "id"}]},
            {"name": "windows", "path": "/windows", "incremental": WINDOWS},
        ]  # fmt: skip
        config = {"base_url": api.url, "max_retries": 0, "streams": streams}
        source = Source(tmp_path)
        failing |= {1, 2, DAYS[3]}
        first = source.read(config, "children", "windows")
        failing.clear()
        second = source.read(config, "children", "windows", state=kept(first))
        third = source.read(config, "children", "windows", state=kept(second))
    assert [result.exit_code for result in (first, second, third)] == [1, 0, 0]
    missed = {parent * 10 + day for parent in (1, 2) for day in (1, 2, 3)}
    ids = [sorted(row["id"] for row in records(result, "children")) for result in (first, second)]
    assert ids[1] == sorted(missed)
    assert sorted(ids[0] + ids[1]) == sorted(parent * 10 + day for parent in range(6) for day in (1, 2, 3))
    # Windows are closed in their order: what lies behind the one that failed may come again, and nothing is missing.
    assert {row["id"] for result in (first, second) for row in records(result, "windows")} == set(range(1, 8))
    assert {row["id"] for row in records(second, "windows")} >= {3}
    assert third.of("RECORD") == []
