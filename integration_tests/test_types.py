"""Every case of ``type_cases.py`` through the real process, read back by two readers; and by writers that are wrong.

A suite that lets a wrong writer pass tests nothing: each of them must fail exactly the cases that its fault touches.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from integration_tests.harness import House, Result, complete
from integration_tests.type_cases import CASES, EVOLUTIONS, STR, Case, Evolution, Kind

OURS = {"n", "_airbyte_raw_id", "_airbyte_extracted_at", "_airbyte_generation_id", "_airbyte_meta", "_airbyte_extra"}
Row = dict[str, Any]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """The cases of one schema, which share a stream. A case's number is its place here."""

    stream: str
    cases: Sequence[Case]

    @property
    def kinds(self) -> Mapping[str, Kind]:
        return self.cases[0].kinds

    @property
    def schema(self) -> Schema:
        fields = {name: kind.schema for name, kind in self.kinds.items()}
        return {"type": "object", "properties": {"n": {"type": "integer"}, **fields}}

    @property
    def lines(self) -> list[bytes]:
        return [case.input(number, self.stream) for number, case in enumerate(self.cases)]


def grouped(cases: Iterable[Case]) -> list[Group]:
    found: dict[str, list[Case]] = {}
    for case in cases:
        key = [case.types, {name: kind.schema for name, kind in case.kinds.items()}]
        found.setdefault(json.dumps(key), []).append(case)
    return [Group(f"t{number}", members) for number, members in enumerate(found.values())]


GROUPS = grouped(CASES)


@dataclass(frozen=True)
class Wrong:
    """What a wrong writer makes of types before the real process gets them."""

    old: Collection[str]
    new: str


def by_options(groups: Iterable[Group]) -> list[list[Group]]:
    """The groups that can share a sync."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(json.dumps(group.cases[0].types), []).append(group)
    return list(found.values())


def write(house: House, groups: Sequence[Group], wrong: Wrong | None = None, **config: Any) -> Result:
    """All groups in one sync, one after the other."""
    streams, body = [], []
    for group in groups:
        schema, lines = group.schema, group.lines
        if wrong is not None:
            schema["properties"] |= {
                name: retyped(wrong.old, wrong.new)(kind.schema) for name, kind in group.kinds.items()
            }
        entry = {"name": group.stream, "json_schema": schema}
        streams.append({"stream": entry, "sync_mode": "incremental", "destination_sync_mode": "append"})
        body += [*lines, json.dumps(complete(group.stream)).encode()]
    return house.write(b"\xef\xbb\xbf" + b"\n".join(body), {"streams": streams}, config=house.config(**config))


def by_pyarrow(house: House, table: str) -> dict[int, Row]:
    """Rows by number, as a reader sees them who follows Glue with boto3 and pyarrow."""
    return {int(row["n"]): row for row in house.rows(table)}


def by_duckdb(house: House, table: str) -> dict[int, Row]:
    """Rows by number, as DuckDB reads copies of the files under the table's Location."""
    paths = []
    for number, key in enumerate(house.live_keys(table)):
        path = house.folder / f"{table}-{number}.parquet"
        house.s3.download_file(house.bucket, key, str(path))
        paths.append(str(path))
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        found = database.read_parquet(paths, union_by_name=True)
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    for path in map(Path, paths):
        path.unlink()
    return {int(row["n"]): row for row in rows}


Reader = Callable[[House, str], dict[int, Row]]
Predicate = Callable[[Case], bool]


def exactly(value: Any) -> Any:
    """A value in a form in which only equal values of equal types are equal: 1, 1.0, -0.0 and True all differ."""
    match value:
        case dict():
            return {name: exactly(item) for name, item in value.items()}
        case list():
            return [exactly(item) for item in value]
        case datetime() | date():
            return f"{type(value).__name__} {value.isoformat()}"
        case _:
            return f"{type(value).__name__} {value!r}" if not isinstance(value, Decimal) else f"Decimal {value:f}"


def fault(case: Case, row: Row | None) -> str | None:
    """What is not as the case says; None if everything is. Long values are shortened."""
    if row is None:
        return "no such row"
    stored = {name: value for name, value in row.items() if name not in OURS}
    changes = tuple(
        (c["field"], c["change"], c["reason"]) for c in (row["_airbyte_meta"] or {"changes": []})["changes"]
    )
    for what, found, expected in (
        ("row", exactly(stored), exactly(dict(case.row))),
        ("changes", changes, case.changes),
        ("extra", row.get("_airbyte_extra"), case.extra),
    ):
        if found != expected:
            return f"{what} {str(found)[:300]} and not {str(expected)[:300]}"
    return None


def faults(
    house: House, groups: Sequence[Group], readers: Iterable[Reader] = (by_pyarrow, by_duckdb)
) -> dict[str, str]:
    """What a reader finds wrong, by case."""
    found: dict[str, str] = {}
    for group, read in itertools.product(groups, readers):
        rows = read(house, group.stream)
        for number, case in enumerate(group.cases):
            problem = fault(case, rows.get(number))
            if problem is not None:
                found[case.name] = f"{read.__name__}: {problem}"
        if len(rows) != len(group.cases):
            found[group.stream] = f"{read.__name__}: {len(rows)} rows"
    return found


def test_every_case_is_stored_as_it_says(house: House):
    assert len({case.name for case in CASES}) == len(CASES)
    for groups in by_options(GROUPS):
        # 20 MB in a field that nobody declared are held several times while they become part of _airbyte_extra.
        result = write(house, groups, memory_limit_mb=1024, types=groups[0].cases[0].types)
        assert result.exit_code == 0, result.errors
    found = faults(house, GROUPS)
    assert not found, "\n".join(f"{name}: {problem}" for name, problem in found.items())
    for group in GROUPS:
        columns = house.columns(group.stream)
        glue = [kind.glue for kind in group.kinds.values()]
        assert [kind for name, kind in columns.items() if name not in OURS] == glue, group.stream
    # The third wrong writer: it nulls whatever is odd, and says nothing.
    nulls = faults(house, GROUPS, [lambda house, table: _each(without_a_word, by_pyarrow(house, table))])
    require_only_what_it_touches(CASES, nulls, is_changed, lambda case: not is_changed(case))


def retyped(old: Collection[str], new: str) -> Callable[[Any], Any]:
    """A schema, at any depth, with other types in place of ``old``."""

    def change(schema: Any) -> Any:
        if isinstance(schema, list):
            return [change(branch) for branch in schema]
        if not isinstance(schema, dict):
            return schema
        if schema.get("$ref", "").rpartition("/")[2].lower() in old or schema.get("airbyte_type") in old:
            return {"type": new}
        types = schema.get("type")
        if {*(types if isinstance(types, list) else [types])} & {*old}:
            return {"type": new}
        return {name: change(part) for name, part in schema.items()}

    return change


def without_a_word(row: Row) -> Row:
    """What is left of a row where a value that did not fit is NULL and nobody says so."""
    meta = {**row["_airbyte_meta"], "changes": []}
    return {**row, "_airbyte_meta": meta, "_airbyte_extra": None}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
    return [value]


def has(*types: type) -> Callable[[Case], bool]:
    """Cases whose row holds a value of one of these types."""
    return lambda case: any(type(leaf) in types for leaf in leaves(dict(case.row)))


def is_changed(case: Case) -> bool:
    return bool(case.changes) or case.extra is not None


NUMERIC = ("integer", "number", "big_integer", "big_number")
TYPED = (*NUMERIC, "boolean", "string", "date", "timestampwithtimezone", "timestampwithouttimezone")
WRONG_WRITERS = {
    "all text": (
        Wrong(TYPED, "string"),
        has(int, float, bool, Decimal, date, datetime),
        lambda case: all(kind.schema == STR.schema for kind in case.kinds.values()),
    ),
    "all float": (
        Wrong(NUMERIC, "number"),
        has(int, Decimal),
        lambda case: (
            not any(name in json.dumps(kind.schema).lower() for kind in case.kinds.values() for name in NUMERIC)
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "fails", "passes"), WRONG_WRITERS.values(), ids=WRONG_WRITERS)
def test_a_wrong_writer_fails_what_its_fault_touches_and_nothing_else(
    house: House, wrong: Wrong, fails: Predicate, passes: Predicate
):
    cases = [case for case in CASES if not case.is_large and not case.types]
    groups = grouped(cases)
    assert write(house, groups, wrong).exit_code == 0

    require_only_what_it_touches(cases, faults(house, groups, [by_pyarrow]), fails, passes)


def require_only_what_it_touches(
    cases: Sequence[Case], found: Mapping[str, str], fails: Predicate, passes: Predicate
) -> None:
    assert [case.name for case in cases if fails(case) and case.name not in found] == []
    assert {case.name: found[case.name] for case in cases if passes(case) and case.name in found} == {}
    assert sum(map(fails, cases)) > 50
    assert sum(map(passes, cases)) > 20


def _each(change: Callable[[Row], Row], rows: Mapping[int, Row]) -> dict[int, Row]:
    return {number: change(row) for number, row in rows.items()}


def sync(house: House, evolutions: Mapping[str, Evolution], turn: int) -> Result:
    """One of the two syncs: a table with a column for each of these, and a row for each place in their values."""
    fields: dict[str, Any] = {"n": {"type": "integer"}}
    for name, evolution in evolutions.items():
        kind = (evolution.before, evolution.after)[turn]
        fields |= {name: kind.schema} if kind is not None else {}
    rows: dict[int, list[str]] = {}
    for name, evolution in evolutions.items():
        for number, text in enumerate((evolution.old, evolution.new)[turn]):
            rows.setdefault(100 * turn + number, []).append(f'"{name}":{text}')
    lines = [Case("", {}, f"{{{','.join(row)}}}", {}).input(number, "s") for number, row in rows.items()]
    stream = {"name": "s", "json_schema": {"type": "object", "properties": fields}}
    entry = {"stream": stream, "sync_mode": "incremental", "destination_sync_mode": "append"}
    body = b"\n".join([*lines, json.dumps(complete("s")).encode()])
    types = next(iter(evolutions.values())).options[turn]
    return house.write(body, {"streams": [entry]}, config=house.config(types=types))


OPTIONS = {json.dumps(evolution.options): evolution.options for evolution in EVOLUTIONS}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_columns_whose_fields_change_hold_what_was_there_and_what_comes(house: House, options: Any):
    evolutions = {f"f{number}": each for number, each in enumerate(EVOLUTIONS) if each.options == options}
    for turn in (0, 1):
        result = sync(house, evolutions, turn)
        assert result.exit_code == 0, result.errors
    problems = {}
    for read in (by_pyarrow, by_duckdb):
        rows = read(house, "s")
        for name, evolution in evolutions.items():
            places = [*range(len(evolution.old)), *range(100, 100 + len(evolution.new))]
            found = house.columns("s").get(name), [exactly(rows[place].get(name)) for place in places]
            expected = evolution.glue, [exactly(value) for value in evolution.values]
            if found != expected:
                problems[evolution.name] = f"{read.__name__}: {found} and not {expected}"
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems.items())
