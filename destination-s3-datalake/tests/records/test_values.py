"""Values good, bad, boundary and out of range, through ingest into a real file and back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from destination_s3_datalake.config import ParquetFormat, TypeOptions
from destination_s3_datalake.errors import DataError, UnusableLineError
from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.records.evolution import plan_columns
from destination_s3_datalake.records.files import FileOptions
from destination_s3_datalake.records.ingest import IngestJob, WriteOptions, ingest, keep_all

BAD, LARGE = "DESTINATION_SERIALIZATION_ERROR", "DESTINATION_FIELD_SIZE_LIMITATION"
STR, INT, NUM, BOOL = {"type": "string"}, {"type": ["null", "integer"]}, {"type": "number"}, {"type": "boolean"}
TZ, DAY = {"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}
NTZ = {**TZ, "airbyte_type": "timestamp_without_timezone"}
OBJ = {"type": "object", "properties": {"a": INT, "b": {"type": "array", "items": INT}}}
ANY: dict[str, Any] = {"type": "object"}
UNION = {"type": ["string", "integer"]}
SAME = object()


@dataclass
class Case:
    """A field's schema, its JSON text, and what must be stored of it."""

    schema: Any
    text: str
    value: Any
    change: tuple[str, str, str] | None = None
    extra: Any = None


def nulled(schema: Any, text: str, reason: str = BAD, extra: Any = SAME) -> Case:
    return Case(schema, text, None, ("f", "NULLED", reason), {"f": json.loads(text) if extra is SAME else extra})


CASES = [
    *(Case(INT, text, int(text)) for text in ("0", "-1", "42", "2147483648", str(2**63 - 1), str(-(2**63)))),
    Case(INT, "null", None),
    Case(INT, "1.0", 1),
    Case(INT, "1e3", 1000),
    nulled(INT, str(2**63), LARGE),
    nulled(INT, "9" * 32, LARGE),
    nulled(INT, "1.5"),
    nulled(INT, '"foo"'),
    nulled(INT, "{}"),
    nulled(INT, "true"),
    nulled(INT, "NaN", extra="NaN"),
    Case(NUM, "0.1", 0.1),
    Case(NUM, "-0.0", -0.0),
    Case(NUM, "1.7976931348623157e308", 1.7976931348623157e308),
    nulled(NUM, "1e400", LARGE, extra=float("inf")),
    nulled(NUM, "Infinity", extra="Infinity"),
    Case(NUM, "1234567890.1234567890123456789", 1234567890.1234567, ("f", "TRUNCATED", LARGE), SAME),
    Case(NUM, "9007199254740993", 9007199254740992.0, ("f", "TRUNCATED", LARGE), SAME),
    nulled(NUM, '"1"'),
    Case(BOOL, "true", True),
    nulled(BOOL, '"true"'),
    nulled(BOOL, "1"),
    Case(STR, '"fo\\u0000o"', "fo\x00o"),
    Case(STR, '""', ""),
    Case(STR, "{}", "{}"),
    Case(STR, "1.10", "1.10"),
    Case(STR, "true", "true"),
    Case(STR, '[1,"é"]', '[1,"é"]'),
    Case(STR, '"a\\ud800b"', "a\ufffdb", ("f", "TRUNCATED", BAD), SAME),
    Case(DAY, '"0001-01-01"', "0001-01-01"),
    Case(DAY, '"9999-12-31"', "9999-12-31"),
    nulled(DAY, '"2026-02-30"'),
    nulled(DAY, '"10000-01-01"', LARGE),
    nulled(DAY, '"2026-01-01T00:00:00Z"'),
    Case(TZ, '"0001-01-01T00:00:00Z"', "0001-01-01T00:00:00+00:00"),
    Case(TZ, '"9999-12-31T23:59:59.999999Z"', "9999-12-31T23:59:59.999999+00:00"),
    Case(TZ, '"2026-01-01T00:00:00+14:00"', "2025-12-31T10:00:00+00:00"),
    Case(TZ, '"2026-01-01T00:00:00+0530"', "2025-12-31T18:30:00+00:00"),
    Case(TZ, '"2026-01-01T00:00:00-00:00"', "2026-01-01T00:00:00+00:00"),
    Case(TZ, '"2026-01-01T00:00Z"', "2026-01-01T00:00:00+00:00"),
    Case(TZ, '"2026-01-01T00:00:00.1234567Z"', "2026-01-01T00:00:00.123456+00:00", ("f", "TRUNCATED", LARGE), SAME),
    nulled(TZ, '"2026-01-01T24:00:00Z"'),
    nulled(TZ, '"2026-06-30T23:59:60Z"'),
    nulled(TZ, "1700000000"),
    nulled(TZ, '"infinity"'),
    nulled(TZ, '"-0044-03-15T00:00:00Z"'),
    nulled(TZ, '"10000-01-01T00:00:00Z"', LARGE),
    nulled(TZ, '"0001-01-01T00:00:00+14:00"', LARGE),
    Case(NTZ, '"2026-01-01T10:00:00"', "2026-01-01T10:00:00"),
    Case(ANY, '{"n": 1.10, "big": 123456789012345678901234567890, "e": 1e2}',
         '{"n":1.10,"big":123456789012345678901234567890,"e":1e2}'),
    Case(ANY, '{"n": NaN}', '{"n":null}', ("f.n", "NULLED", BAD), {"f.n": "NaN"}),
    Case(UNION, '"x"', '"x"'),
    Case(UNION, "5", "5"),
    Case(OBJ, '{"a": 1, "b": [1, 2]}', {"a": 1, "b": [1, 2]}),
    Case(OBJ, '{"a": 1, "z.y": [1]}', {"a": 1, "b": None}, None, {"f.z\\.y": [1]}),
    Case(OBJ, '{"a": "x", "b": [1, "two"]}', {"a": None, "b": [1, None]}, ("f.a", "NULLED", BAD),
         {"f.a": "x", "f.b.1": "two"}),
    nulled(OBJ, "[1]"),
    nulled({"type": "array", "items": INT}, "{}"),
    Case({"type": "string", "airbyte_type": "big_integer"}, '"123456789012345678901234567890"',
         "123456789012345678901234567890"),
    nulled({"type": "string", "airbyte_type": "big_number"}, '"Infinity"'),
]  # fmt: skip


def write(
    folder: Path, schema: Any, lines: list[str], *, keep: Any = keep_all, form: Any = None, **options: Any
) -> Any:
    shutil.rmtree(folder / "out.parquet", ignore_errors=True)
    file = folder / "lines.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    plan = plan_columns(schema, sources=(), known_names={}, stream="s", options=TypeOptions())
    files = FileOptions(ParquetFormat(format_type="parquet") if form is None else form, memory_limit_mb=128)
    defaults: dict[str, Any] = {"files": files, "undeclared_fields": "keep", "memory_limit_mb": 128}
    job = IngestJob(
        StreamId(None, "s"), file, len(lines), 1000, folder / "out.parquet", plan.columns, 0, 0,
        WriteOptions(**{**defaults, **options}, temp_directory=folder),
    )  # fmt: skip
    return ingest(job, keep)


def line(data: str, emitted_at: int = 1) -> str:
    return f'{{"type":"RECORD","record":{{"stream":"s","emitted_at":{emitted_at},"data":{data}}}}}'


def test_every_value_is_stored_or_stored_with_its_change_and_original(tmp_path: Path):
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        schema = {"type": "object", "properties": {"f": case.schema}}
        write(folder, schema, [line(f'{{"f":{case.text}}}')])
        (row,) = pq.read_table(folder / "out.parquet").to_pylist()
        found = row["f"]
        if hasattr(found, "isoformat"):
            found = found.isoformat()
        elif type(found).__name__ == "Decimal":
            found = str(found)
        assert found == case.value, case
        if isinstance(case.value, float):
            assert np.signbit(found) == np.signbit(case.value)
        changes = [(c["field"], c["change"], c["reason"]) for c in row["_airbyte_meta"]["changes"]]
        assert changes[:1] == ([case.change] if case.change else []), case
        extra = json.loads(row["_airbyte_extra"]) if row["_airbyte_extra"] is not None else None
        assert extra == ({"f": json.loads(case.text)} if case.extra is SAME else case.extra), case


def test_originals_keep_every_digit(tmp_path: Path):
    schema = {"type": "object", "properties": {"f": INT}}
    write(tmp_path, schema, [line('{"f":123456789012345678901234567890,"new":1.10}')])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["_airbyte_extra"] == '{"f":123456789012345678901234567890,"new":1.10}'


def test_of_repeated_keys_the_last_wins_and_the_first_is_kept(tmp_path: Path):
    write(tmp_path, {"type": "object", "properties": {"f": INT}}, [line('{"f":1,"f":2}')])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["f"], row["_airbyte_extra"]) == (2, '{"f":[1]}')
    assert row["_airbyte_meta"]["changes"] == [{"field": "f", "change": "TRUNCATED", "reason": BAD}]


@pytest.mark.parametrize(
    ("data", "column", "fields", "extra"),
    [
        ('{"f":1,"f":"x"}', None, ["f", "f"], '{"f":[1,"x"]}'),
        ('{"f":"x","f":"y","f":2}', 2, ["f", "f"], '{"f":["x","y"]}'),
        ('{"f":1,"z":1.10,"z":[2]}', 1, ["z"], '{"z":[1.10,[2]]}'),
        ('{"f":1,"z":{"a":1,"a":2}}', 1, [], '{"z":{"a":1,"a":2}}'),
        ('{"f":{"a":1,"a":2}}', None, ["f"], '{"f":{"a":1,"a":2}}'),
        ('{"o":{"a":1,"a":{}},"f":1}', 1, ["o.a", "o.a"], '{"o.a":[1,{}]}'),
        ('{"f":1,"j":{"a":1,"a":NaN}}', 1, ["j.a", "j.a"], '{"j.a":[1,"NaN"]}'),
    ],
)
def test_no_value_of_a_key_that_came_again_is_lost(
    tmp_path: Path, data: str, column: int | None, fields: list[str], extra: str
):
    """Also where the last one fits no column, is in no column, or is part of such a value."""
    write(tmp_path, {"type": "object", "properties": {"f": INT, "o": OBJ, "j": ANY}}, [line(data)])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["f"], row["_airbyte_extra"]) == (column, extra)
    assert [change["field"] for change in row["_airbyte_meta"]["changes"]] == fields


def test_dropped_fields_leave_nothing_behind_when_their_keys_come_again(tmp_path: Path):
    write(tmp_path, {"properties": {"f": INT}}, [line('{"f":1,"z":1,"z":2}')], undeclared_fields="drop")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["_airbyte_extra"], row["_airbyte_meta"]["changes"]) == (None, [])


def test_many_repeated_keys_take_no_time_beyond_their_number(tmp_path: Path):
    data = ",".join(f'"k{number}":{number}' for number in range(20_000))
    write(tmp_path, {}, [line(f"{{{data},{data}}}")])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert json.loads(row["_airbyte_extra"])["k19999"] == [19999, 19999]


def test_lone_surrogates_in_paths_of_changes_become_replacement_characters(tmp_path: Path):
    meta = '"meta":{"changes":[{"field":"\\ud800","change":"NULLED","reason":"SOURCE_\\udfff"}]}'
    sent = line('{"j":{"\\ud800":NaN}}').replace('"emitted_at"', f'{meta},"emitted_at"')
    write(tmp_path, {"properties": {"j": ANY}}, [sent])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["_airbyte_meta"]["changes"] == [
        {"field": "\ufffd", "change": "NULLED", "reason": "SOURCE_\ufffd"},
        {"field": "j.\ufffd", "change": "NULLED", "reason": BAD},
    ]
    assert json.loads(row["_airbyte_extra"]) == {"j.\ud800": "NaN"}


def test_the_sources_own_changes_are_kept(tmp_path: Path):
    meta = '"meta":{"changes":[{"field":"f","change":"NULLED","reason":"SOURCE_SOMETHING_NEW"}]}'
    write(tmp_path, {}, [line('{"f":null}').replace('"emitted_at"', f'{meta},"emitted_at"')])
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["_airbyte_meta"]["changes"] == [{"field": "f", "change": "NULLED", "reason": "SOURCE_SOMETHING_NEW"}]


def test_a_time_that_no_column_holds_is_said_of_its_line_also_among_lines_of_one_shape(tmp_path: Path):
    lines = [*[line('{"f":1}')] * 9, line('{"f":2}', emitted_at=10**17)]
    with pytest.raises(UnusableLineError) as caught:
        write(tmp_path, {"properties": {"f": INT}}, lines)
    assert caught.value.row == 9


@pytest.mark.parametrize("fields", [{"f": INT}, {"": INT, "f": INT}], ids=["undeclared", "declared"])
def test_an_empty_key_is_a_key_like_any_other(tmp_path: Path, fields: Any):
    write(tmp_path, {"properties": fields}, [line('{"":1,"f":2,"o":{"":3}}')] * 9)
    (*_, row) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    kept = json.loads(row["_airbyte_extra"])
    assert (row["f"], kept) == (2, {"o": {"": 3}} if "" in fields else {"": 1, "o": {"": 3}})


@pytest.mark.parametrize(("choice", "extra"), [("keep", '{"x":1}'), ("drop", None)])
def test_undeclared_fields_as_configured(tmp_path: Path, choice: str, extra: str | None):
    write(tmp_path, {"type": "object", "properties": {"f": INT}}, [line('{"f":1,"x":1}')], undeclared_fields=choice)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[0]["_airbyte_extra"] == extra


def test_undeclared_fields_can_end_the_sync_by_name(tmp_path: Path):
    with pytest.raises(DataError, match="field x") as caught:
        write(tmp_path, {}, [line('{"x":"c4n4ry"}')], undeclared_fields="fail")
    assert "c4n4ry" not in str(caught.value)


def test_the_hash_is_of_what_is_stored_and_nothing_else(tmp_path: Path):
    schema = {"type": "object", "properties": {"f": INT, "g": TZ}}
    wider = {"type": "object", "properties": {**schema["properties"], "later": STR}}  # type: ignore[dict-item]
    data = '{"f":1,"g":"2026-01-01T00:00:00Z","x":1}'
    first = write(tmp_path, schema, [line(data), line('{"f":2}')]).hashes
    turned = line('{"g": "2026-01-01T00:00:00Z", "f": 1, "x": 1}', emitted_at=99)
    assert write(tmp_path, schema, [turned]).hashes[0] == first[0] != first[1]
    assert write(tmp_path, wider, [turned]).hashes[0] == first[0]


def test_rows_that_are_not_kept_are_not_written(tmp_path: Path):
    lines = [line(f'{{"f":{n}}}') for n in range(5)]
    mask = np.array([True, False, True, False, True])
    result = write(tmp_path, {"type": "object", "properties": {"f": INT}}, lines, keep=lambda hashes: mask)
    assert ([file.rows for file in result.files], len(result.hashes)) == ([3], 5)
    assert pq.read_table(tmp_path / "out.parquet")["f"].to_pylist() == [0, 2, 4]


def test_no_file_is_written_when_no_row_is_kept(tmp_path: Path):
    result = write(tmp_path, {}, [line("{}")], keep=lambda hashes: np.zeros(len(hashes), dtype=bool))
    assert (result.files, (tmp_path / "out.parquet").exists()) == ((), False)


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "brotli", "none"])
def test_every_compression_is_readable(tmp_path: Path, compression: Any):
    form = ParquetFormat(format_type="parquet", compression=compression)
    write(tmp_path, {"type": "object", "properties": {"f": INT}}, [line('{"f":1}')], form=form)
    assert pq.read_table(tmp_path / "out.parquet")["f"].to_pylist() == [1]
