"""Every case of ``acceptance_cases.py`` through the real process, and through writers that are wrong on purpose.

A suite that lets a wrong writer pass tests nothing: each of them must fail exactly the cases that its fault touches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from integration_tests.acceptance_cases import CASES, INCOMPLETE, Case, Row, Sync
from integration_tests.harness import House, Message, Result, as_lines
from integration_tests.in_process import write_in_process

Writer = Callable[[House, Sync], Result]


def right(house: House, sync: Sync) -> Result:
    return house.write(sync.lines, {"streams": sync.streams})


def here(house: House, lines: Sequence[Message], streams: Sequence[Message], **config: Any) -> Result:
    """Wrong writers take no process: it is the cases that are tried with them."""
    return write_in_process(house.config(**config), {"streams": streams}, as_lines(lines))


def drops_the_last_row(house: House, sync: Sync) -> Result:
    numbers = [number for number, line in enumerate(sync.lines) if line["type"] == "RECORD"]
    lines = [line for number, line in enumerate(sync.lines) if number not in numbers[-1:]]
    return here(house, lines, sync.streams)


def publishes_at_eof_always(house: House, sync: Sync) -> Result:
    lines = [line for line in sync.lines if line != INCOMPLETE]
    return here(house, lines, sync.streams, publish_without_completion="always")


def ignores_generations(house: House, sync: Sync) -> Result:
    streams = copy.deepcopy(list(sync.streams))
    for entry in streams:
        for name in ("generation_id", "minimum_generation_id", "sync_id"):
            entry.pop(name, None)
    return here(house, sync.lines, streams)


def fails(house: House, case: Case, writer: Writer) -> str | None:
    """What is not as it should be; None if everything is."""
    for space in {entry["stream"].get("namespace") for sync in case.syncs for entry in sync.streams} - {None}:
        with suppress(house.glue.exceptions.EntityNotFoundException):
            house.glue.delete_database(Name=space)
    for number, sync in enumerate(case.syncs):
        result = writer(house, sync)
        if result.exit_code != sync.exit_code:
            return f"sync {number}: exit code {result.exit_code}: {[e['message'] for e in result.errors]}"
        if sync.states is not None and len(result.of("STATE")) != sync.states:
            return f"sync {number}: {len(result.of('STATE'))} STATEs"
        stats = [message["state"]["destinationStats"]["recordCount"] for message in result.of("STATE")]
        if sync.stats is not None and stats != sync.stats:
            return f"sync {number}: counts {stats}"
        for table, expected in {case.table: sync.rows, **sync.tables}.items():
            found = seen(house, table, case.columns)
            if sorted(map(repr, found)) != sorted(map(repr, expected)):
                return f"sync {number}: {table} has {found} and not {expected}"
    return None


def seen(house: House, table: str, columns: tuple[str, ...]) -> list[Row]:
    namespace, _, name = table.rpartition(".")
    here = house if not namespace else House(house.lake, house.bucket, namespace, house.folder)
    return [tuple(_value(row, column) for column in columns) for row in here.rows(name)]


def _value(row: dict[str, Any], column: str) -> Any:
    name, _, field = column.partition(".")
    found = row.get(name)
    return found[field] if field and found is not None else found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(house: House, case: Case):
    assert fails(house, case, right) is None


PUBLISHED_TOO_EARLY = {
    "a truncate that died keeps the old rows, and its retry publishes the rows of both tries",
    "a truncate that died without an earlier table shows nothing until its retry",
    "a truncate whose retry has nothing left publishes what the first try stored",
    "after a cancelled truncate every row of before and of it is there",
    "an overwrite that died changes nothing",
    "a truncate of a dedup stream that died goes on, and old rows and deletes go with the old table",
    "a cancelled truncate of a dedup stream is merged into the old rows",
}
WITHOUT_GENERATIONS = {
    "append keeps the generations side by side",
    "a truncate that died keeps the old rows, and its retry publishes the rows of both tries",
    "a truncate that died without an earlier table shows nothing until its retry",
    "a truncate whose retry has nothing left publishes what the first try stored",
    "after a cancelled truncate every row of before and of it is there",
    "a truncate with no records empties the table",
    "a generation lower than the published one replaces it",
    "dedup to append at a truncate: only the new generation, with its copies",
    "a truncate of a dedup stream that died goes on, and old rows and deletes go with the old table",
    "a cancelled truncate of a dedup stream is merged into the old rows",
}
NOTHING_TO_DROP = {"no data makes an empty table"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize(
    ("writer", "fails_at"),
    [
        (drops_the_last_row, {case.name for case in CASES} - NOTHING_TO_DROP),
        (publishes_at_eof_always, PUBLISHED_TOO_EARLY),
        (ignores_generations, WITHOUT_GENERATIONS),
    ],
    ids=["drops the last row", "publishes at EOF always", "ignores generations"],
)
def test_a_wrong_writer_fails_what_its_fault_touches_and_nothing_else(
    house: House, case: Case, writer: Writer, fails_at: set[str]
):
    assert (fails(house, case, writer) is not None) == (case.name in fails_at)
