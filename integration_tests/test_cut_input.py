"""stdin cut at every byte: exactly what a STATE stands for is stored, and everything else is said."""

from __future__ import annotations

import json

import pytest

from integration_tests.harness import House, Result, catalog, record, state
from integration_tests.in_process import write_in_process

CANARY = "c4n4ry"
MESSAGES = [
    record(1, text=CANARY),
    record(2, text=CANARY),
    state({"c": 2}),
    record(3, text=CANARY),
    state({"c": 3}),
]
LINES = [json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in MESSAGES]
INPUT = b"".join(LINES)
PARTS = 6  # so that several workers share them
ENDS = [len(b"".join(LINES[: n + 1])) for n in range(len(LINES))]


def in_process(house: House, body: bytes, stream: str) -> Result:
    return write_in_process(house.config(), catalog(stream), body.replace(b'"orders"', f'"{stream}"'.encode()))


def require(result: Result, house: House, cut: int, table: str) -> None:
    """What must hold when the input ends behind its first ``cut`` bytes."""
    whole_states = [n for n, end in zip((2, 3), (ENDS[2], ENDS[4]), strict=True) if cut >= end - 1]
    behind_a_state = cut in (ENDS[2] - 1, ENDS[2], ENDS[4] - 1, ENDS[4])
    said = f"cut at byte {cut}"
    assert result.states == [{"c": n} for n in whole_states], said
    stored = house.ids(table) if house.has_table(table) else []
    assert stored == list(range(1, (whole_states or [0])[-1] + 1)), said
    assert CANARY.encode() not in result.stdout, said
    if cut == 0 or behind_a_state:
        assert (result.exit_code, result.errors) == (0, []), said
        return
    assert result.exit_code == 1, said
    (error,) = result.errors
    line = INPUT[:cut].count(b"\n") + 1
    whole_rows_behind = sum(1 for n in (0, 1, 3) if ENDS[n] - 1 <= cut) - (whole_states or [0])[-1]
    is_half = cut not in ENDS and cut + 1 not in ENDS
    assert (f"Line {line} " if is_half else f"{whole_rows_behind} rows") in error["message"], said


@pytest.mark.parametrize("part", range(PARTS))
def test_the_input_cut_at_every_byte(house: House, part: int):
    for cut in range(part, len(INPUT) + 1, PARTS):
        table = f"cut_{cut}"
        require(in_process(house, INPUT[:cut], table), house, cut, table)


@pytest.mark.parametrize("cut", [0, 1, ENDS[1], ENDS[2] - 1, ENDS[2], ENDS[2] + 40, ENDS[4] - 1, ENDS[4]])
def test_the_same_through_the_real_process(house: House, cut: int):
    require(house.write(INPUT[:cut]), house, cut, "orders")


def test_a_record_of_an_unknown_stream_ends_the_sync_behind_the_last_state(house: House):
    result = house.write([record(1), state({"c": 1}), record(2, "nobody"), record(3), state({"c": 3})])
    assert (result.exit_code, result.states, house.ids()) == (1, [{"c": 1}], [1])
    assert "nobody" in result.errors[0]["message"]
