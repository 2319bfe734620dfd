"""A part of the campaign of hostile lines (``make fuzz``); and its judge finds what a wrong writer does."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from integration_tests import fuzz
from integration_tests.fuzz import CHANGED, FAILED, STORED, Campaign, Maker, Tally
from integration_tests.harness import House, Result, record, state

LINES = 150
Row = dict[str, Any]


def test_each_hostile_line_is_stored_or_stored_with_its_change_or_fails(house: House):
    tally = Campaign(house, Maker(3), fuzz.in_process).run(range(LINES))
    assert tally.problems == []
    assert fuzz.shortfalls(tally, LINES) == []


@pytest.mark.slow
def test_the_same_through_the_real_process(house: House):
    tally = Campaign(house, Maker(4), fuzz.by_process).run(range(20))
    assert tally.problems == []
    assert sum(tally.outcomes.values()) == 20


DATA = {**fuzz.GOOD, "n": 1}
ODD = (
    '{"n":1,"i":"x","d":9007199254740993,"s":"a\\ud800","o":{"a":1,"z":[1.10]},"l":[1,"y"],"j":{"a":NaN},"b":true,'
    '"b":1}'
)
META = {"sync_id": 0, "changes": []}
GOOD_ROW: Row = {**fuzz.GOOD_ROW, "n": 1, "_airbyte_meta": META}
EMPTY = dict.fromkeys(fuzz.KINDS)
ODD_ROW: Row = {
    **EMPTY, "n": 1, "d": 9007199254740992.0, "s": "a\ufffd", "o": {"a": 1, "b": None, "deep": None}, "l": [1, None],
    "j": '{"a":null}',
    "_airbyte_extra": '{"i":"x","d":9007199254740993,"s":"a\\ud800","o.z":[1.10],"l.1":"y","j.a":"NaN","b":[true,1]}',
    "_airbyte_meta": {"sync_id": 0, "changes": [
        {"field": name, "change": change, "reason": "any"}
        for name, change in (("i", "NULLED"), ("d", "TRUNCATED"), ("s", "TRUNCATED"), ("l.1", "NULLED"),
                             ("j.a", "NULLED"), ("b", "NULLED"), ("b", "TRUNCATED"))]},
}  # fmt: skip


def line(data: str) -> bytes:
    return f'{{"type":"RECORD","record":{{"stream":"s","emitted_at":1,"data":{data}}}}}'.encode()


def judged(data: str, row: Mapping[str, Any]) -> list[str]:
    return fuzz.judge(line(data), "s", row)[0]


def test_the_judge_passes_what_is_right():
    assert fuzz.judge(line(json.dumps(DATA)), "s", GOOD_ROW) == ([], False)
    assert fuzz.judge(line(ODD), "s", ODD_ROW) == ([], True)


@pytest.mark.parametrize("name", [*fuzz.KINDS])
def test_the_judge_finds_a_column_that_is_null_or_another_value(name: str):
    wrong: Row = {**GOOD_ROW, name: None}
    assert any(problem.startswith(name) for problem in judged(json.dumps(DATA), wrong))
    other = {"integer": 2, "number": 0.25, "boolean": False, "string": "x", "time": "x"}.get(str(fuzz.KINDS[name]))
    values = {"big": GOOD_ROW["big"] + 1, "exact": GOOD_ROW["exact"] + 1, "u": '"1"', "j": '{"k":[1.0]}', "list": "[]",
              "l": [1], "m": [[0.5], None], "o": {**GOOD_ROW["o"], "b": "y"}, "objs": []}  # fmt: skip
    moved = {name: GOOD_ROW[name].replace(year=2023, day=1) for name in ("day", "tz", "ntz")}
    wrong[name] = ({**values, **moved} | ({name: other} if other is not None else {}))[name]
    assert any(problem.startswith(name) for problem in judged(json.dumps(DATA), wrong))


@pytest.mark.parametrize("number", range(len(ODD_ROW["_airbyte_meta"]["changes"])))
def test_the_judge_finds_a_change_that_is_missing(number: int):
    wrong = copy.deepcopy(ODD_ROW)
    del wrong["_airbyte_meta"]["changes"][number]
    assert judged(ODD, wrong) != []


@pytest.mark.parametrize("path", [*json.loads(ODD_ROW["_airbyte_extra"])])
def test_the_judge_finds_an_original_that_is_missing_or_another(path: str):
    kept = json.loads(ODD_ROW["_airbyte_extra"])
    without = {name: value for name, value in kept.items() if name != path}
    for extra in (without, {**kept, path: "another"}, {**kept, path: [1]}):
        assert judged(ODD, {**ODD_ROW, "_airbyte_extra": json.dumps(extra)}) != [], extra


def test_the_judge_finds_changes_and_originals_for_no_reason():
    change = {"field": "i", "change": "NULLED", "reason": "any"}
    assert judged(json.dumps(DATA), {**GOOD_ROW, "_airbyte_meta": {"changes": [change]}}) != []
    assert judged(json.dumps(DATA), {**GOOD_ROW, "_airbyte_extra": '{"new":1}'}) != []
    assert judged("[]", GOOD_ROW) == ["stored, though it is no record"]


def test_the_judge_knows_the_sources_changes_whatever_is_broken_in_them():
    for sent, stored in (('{"field":"s","change":"NULLED"}', ("s", "NULLED")), ('{"fjeld":"s"},5', (None, None))):
        raw = line(json.dumps(DATA)).replace(b'"emitted_at"', f'"meta":{{"changes":[{sent}]}},"emitted_at"'.encode())
        change = dict(zip(("field", "change"), stored, strict=True))
        right = {**GOOD_ROW, "_airbyte_meta": {"changes": [change]}}
        assert fuzz.judge(raw, "s", right) == ([], True)
        assert fuzz.judge(raw, "s", GOOD_ROW)[0] != []


def wrong(house: House, write: fuzz.Write, prefix: str = "t") -> Tally:
    """What the campaign finds of lines, every third of which must fail, when a writer does this with its input."""
    maker = Maker(3)
    fails = [n for n in range(300) if fuzz.record_of(maker.hostile(n, "s"), "s") is None][:2]
    return Campaign(house, maker, write, prefix).run(
        [n for place in range(2) for n in (place, place + 2, fails[place])]
    )


def test_the_campaign_finds_a_writer_that_drops_a_line(house: House):
    def write(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        lines = body.split(b"\n")
        return fuzz.in_process(house, configured, b"\n".join(lines[:2] + lines[3:]))

    assert any("rows and not" in problem for problem in wrong(house, write).problems)


def test_the_campaign_finds_a_writer_that_prints_a_record(house: House):
    def write(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        result = fuzz.in_process(house, configured, body)
        return Result(result.exit_code, result.stdout + body.split(b"\n")[0] + b"\n", b"")

    def saying(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        result = fuzz.in_process(house, configured, body)
        return Result(result.exit_code, result.stdout, b"Traceback: " + Maker(3).canary(1).encode())

    for number, wrong_write in enumerate((write, saying)):
        assert any("was printed" in problem for problem in wrong(house, wrong_write, f"v{number}_").problems)


def test_the_campaign_finds_states_that_leave_behind_a_failed_line_and_failures_without_a_line(house: House):
    def with_states(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        result = fuzz.in_process(house, configured, body)
        more = json.dumps(state({"c": 99})).encode() + b"\n"
        return Result(result.exit_code, result.stdout + more, b"")

    def without_a_line(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        result = fuzz.in_process(house, configured, body)
        return Result(result.exit_code, result.stdout.replace(b"Line ", b"Some line "), b"")

    assert any("STATEs" in problem for problem in wrong(house, with_states).problems)
    assert any("no hostile line named" in problem for problem in wrong(house, without_a_line).problems)


def test_a_record_that_is_refused_is_a_problem_and_so_is_a_crash(house: House):
    def refusing(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        error = {"type": "TRACE", "trace": {"error": {"message": "Line 3 of the input cannot be used"}}}
        stored = fuzz.in_process(house, configured, b"\n".join(body.split(b"\n")[:2]))
        return Result(1, stored.stdout + json.dumps(error).encode() + b"\n", b"")

    def crashing(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
        raise UnicodeEncodeError("utf-8", "", 0, 1, "")

    refused = wrong(house, refusing)
    assert any("refused, though it is a record" in problem for problem in refused.problems)
    crashed = wrong(house, crashing, "u")
    assert (crashed.outcomes, len(crashed.problems)) == (Counter({FAILED: 6}), 6)


def test_counts_must_sum_up_and_none_may_be_rare():
    assert fuzz.shortfalls(Tally(Counter({STORED: 80, CHANGED: 10, FAILED: 10})), 100) == []
    assert len(fuzz.shortfalls(Tally(Counter({STORED: 82, CHANGED: 9, FAILED: 9})), 100)) == 2
    assert len(fuzz.shortfalls(Tally(Counter({STORED: 80, CHANGED: 10, FAILED: 9})), 100)) == 2


def test_lines_are_a_function_of_the_seed_and_their_number():
    assert [Maker(1).hostile(n, "s") for n in range(50)] == [Maker(1).hostile(n, "s") for n in range(50)]
    assert Maker(1).hostile(1, "s") != Maker(2).hostile(1, "s")
    assert all(b"\n" not in Maker(1).hostile(n, "s") for n in range(500))
    assert fuzz.record_of(json.dumps(record(1, "s")).encode(), "s") is not None
