"""Two paths, one meaning: whatever the fast path takes is what ``values.py`` says of it, bit for bit.

Lines are made from a seed: every type, nested, with values that fit and values that do not, in the spellings that JSON
has for one value. They go through ``ingest`` into a real file; what is read back is compared with ``values.row_of``.
"""

from __future__ import annotations

import json
import math
import os
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from destination_s3_datalake.config import CsvFormat, Format, JsonlFormat, ParquetFormat, TypeOptions
from destination_s3_datalake.errors import UnusableLineError
from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.records import ingest as ingest_module
from destination_s3_datalake.records import values
from destination_s3_datalake.records.evolution import plan_columns
from destination_s3_datalake.records.files import FileOptions
from destination_s3_datalake.records.ingest import (
    Hashes,
    Ingested,
    IngestJob,
    WriteOptions,
    ingest,
    keep_all,
    memory_for,
)
from destination_s3_datalake.records.schema import Column
from numpy.typing import NDArray

STREAM = StreamId(None, "s")
ROWS = int(os.environ.get("DIFFERENTIAL_ROWS", "6000"))
Dice = random.Random
Make = Callable[[Dice], str]


def columns_of(schema: Any, **types: Any) -> tuple[Column, ...]:
    options = TypeOptions(**types)
    return plan_columns(schema, sources=(), known_names={}, stream="s", options=options).columns


def through(
    tmp_path: Path,
    lines: Sequence[bytes],
    columns: tuple[Column, ...],
    *,
    memory_limit_mb: int = 512,
    keep: Callable[[Hashes], NDArray[np.bool_]] = keep_all,
) -> tuple[Ingested, list[Any]]:
    """What is read back of these lines."""
    spooled = tmp_path / "lines.jsonl"
    spooled.write_bytes(b"".join(line + b"\n" for line in lines))
    files = FileOptions(ParquetFormat(format_type="parquet"), memory_limit_mb=memory_limit_mb)
    options = WriteOptions(files, "keep", memory_limit_mb=memory_limit_mb, temp_directory=tmp_path)
    longest = max(map(len, lines))
    job = IngestJob(STREAM, spooled, len(lines), longest, tmp_path / "out", columns, 0, 0, options)
    made = ingest(job, keep)
    return made, pq.read_table(made.files[0].path).to_pylist()


def by_value(line: bytes, columns: tuple[Column, ...]) -> tuple[dict[str, Any], str | None, list[tuple[str, str, str]]]:
    """What the exact path says: values, extra, changes."""
    record = values.read_json(line.decode())["record"]
    row = values.row_of(record["data"], columns, "keep")
    changes = [(change.field, change.change, change.reason) for change in row.changes]
    return row.values, values.json_text(row.extra) if row.extra else None, changes


def bits(value: Any) -> Any:
    """A value in a form that differs where its bits do: -0.0 from 0.0, 1 from 1.0 and True."""
    match value:
        case float():
            return ("double", struct.pack(">d", value))
        case dict():
            return {key: bits(item) for key, item in value.items()}
        case list():
            return [bits(item) for item in value]
        case _ if hasattr(value, "utcoffset") and not isinstance(value, str):
            epoch = values.EPOCH_UTC if value.tzinfo else values.EPOCH
            return (value - epoch) // values.MICROSECOND
        case _:
            return (type(value).__name__, value)


def compare(lines: Sequence[bytes], read: Sequence[dict[str, Any]], columns: tuple[Column, ...]) -> None:
    assert len(read) == len(lines)
    for number, (line, row) in enumerate(zip(lines, read, strict=True)):
        stored, extra, changes = by_value(line, columns)
        found = {column.name: bits(row[column.name]) for column in columns}
        wanted = {name: bits(value) for name, value in stored.items()}
        assert _plain(found) == _plain(wanted), (number, line)
        assert row["_airbyte_extra"] == extra, (number, line)
        found_changes = [(c["field"], c["change"], c["reason"]) for c in row["_airbyte_meta"]["changes"]]
        assert found_changes == changes, (number, line)
        assert row["_airbyte_extracted_at"].timestamp() == pytest.approx(int(1_700_000_000 + number), abs=1e-6)


def _plain(value: Any) -> Any:
    """Timestamps are integers on one side already."""
    if isinstance(value, tuple) and value[0] == "int":
        return value[1]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# -- values, as the JSON text that a source might send -----------------------------------------------------------------


def of(*texts: str) -> Make:
    return lambda dice: dice.choice(texts)


def text(dice: Dice) -> str:
    letters = [
        "a",
        "Z",
        "0",
        " ",
        "é",
        "日",
        "😀",
        '\\"',
        "\\\\",
        "\\n",
        "\\u00e9",
        "\\/",
        "'",
        "$",
        ":",
        ",",
        "}",
        "{",
    ]
    return '"' + "".join(dice.choice(letters) for _ in range(dice.randrange(12))) + '"'


def plain_text(dice: Dice) -> str:
    return '"' + "".join(dice.choice("abcé日 ,:'-1.5") for _ in range(dice.randrange(15))) + '"'


def integer(dice: Dice) -> str:
    return str(dice.choice((0, 1, -1, 42, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), dice.randrange(-(10**9), 10**9))))


def number(dice: Dice) -> str:
    match dice.randrange(4):
        case 0:
            return repr(dice.uniform(-1000, 1000))
        case 1:
            return repr(round(dice.uniform(-1000, 1000), 2))
        case 2:
            return str(dice.randrange(10**6))
        case _:
            found = struct.unpack(">d", dice.randbytes(8))[0]
            return repr(found) if math.isfinite(found) else "1.5"


def cents(dice: Dice) -> str:
    return repr(round(dice.uniform(-1000, 1000), 2))


def day(dice: Dice) -> str:
    return f'"{dice.randrange(1, 10000):04d}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"'


def moment(dice: Dice) -> str:
    zone = dice.choice(("Z", "Z", "Z", "+00:00", "+05:30", "-08:00", "+14:00", ""))
    fraction = dice.choice(("", "", "", ".5", ".123", ".123456", ".000000"))
    clock = f"{dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}"
    return f'{day(dice)[:-1]}T{clock}{fraction}{zone}"'


def wall(dice: Dice) -> str:
    return f'{day(dice)[:-1]}T{dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}"'


def anything(dice: Dice, depth: int = 3) -> str:
    scalars = (text, integer, number, of("true", "false", "null"), odd)
    if depth == 0 or dice.random() < 0.5:
        return dice.choice(scalars)(dice)
    inside = [anything(dice, depth - 1) for _ in range(dice.randrange(4))]
    if dice.random() < 0.5:
        return f"[{','.join(inside)}]"
    return "{" + ",".join(f'"{dice.choice("abcd")}":{item}' for item in inside) + "}"


def orderly(dice: Dice) -> str:
    return json.dumps({"k": dice.randrange(100), "l": [dice.random(), "x"], "m": {"n": None}}, separators=(",", ":"))


ODD = ("1.50", "1e3", "1E+2", "-0", "-0.0", "0.1234567890123456789", "12345678901234567890", "1e400", "1e-400", "NaN",
       "Infinity", "-Infinity", '"42"', '"true"', "true", "{}", "[]", "[1]", '{"a":1,"a":2}', '"\\ud800"', '"\\u0000"',
       '"\\u001f"', '"2024-02-30"', '"24:00:00"', '"infinity"', '"epoch"', '"2024-01-01"', '"2024-01-01T24:00:00Z"',
       '"2024-01-01T00:00:60Z"', '"2024-01-01T00:00:00.1234567Z"', '"10000-01-01T00:00:00Z"',
       '"0001-01-01T00:00:00+14:00"',
       '"-0001-01-01"', '"2024-1-1"', '" 1"', '""', "9223372036854775808", "1.0", "100000000000000000000000.5",
       "4.9e-324", "1.7976931348623157e308", "123456789012345678", "0.1e1", '"1970-01-01T00:00Z"', '"NaN"')  # fmt: skip
odd = of(*ODD)


def field(schema: Any, usual: Make, *, odd_share: float = 0.02, null: float = 0.1, absent: float = 0.0) -> Any:
    return schema, usual, odd_share, null, absent


STRING, NUMBER, DATE_TIME = {"type": "string"}, {"type": "number"}, {"type": "string", "format": "date-time"}
GEO = {"type": "object", "properties": {"lat": NUMBER}}
INNER = {"type": "object", "properties": {"street": STRING, "no": {"type": "integer"}, "geo": GEO}}


def inner(dice: Dice) -> str:
    geo = f'{{"lat":{number(dice)}}}' if dice.random() < 0.9 else "null"
    more = f',"undeclared":{anything(dice, 1)}' if dice.random() < 0.1 else ""
    return f'{{"street":{plain_text(dice)},"no":{integer(dice)},"geo":{geo}{more}}}'


def some(make: Make, most: int = 4) -> Make:
    return lambda dice: f"[{','.join(make(dice) for _ in range(dice.randrange(most)))}]"


FIELDS: dict[str, Any] = {
    "id": field({"type": "integer"}, integer, null=0.0),
    "name": field(STRING, plain_text),
    "body": field({"type": ["null", "string"]}, text),
    "amount": field({"type": "number"}, number),
    "on": field({"type": "boolean"}, of("true", "false")),
    "day": field({"type": "string", "format": "date"}, day),
    "at": field(DATE_TIME, moment),
    "wall": field({**DATE_TIME, "airbyte_type": "timestamp_without_timezone"}, wall),
    "big": field({"type": "integer", "airbyte_type": "big_integer"}, integer),
    "money": field({"type": "string", "airbyte_type": "big_number"}, lambda dice: f'"{cents(dice)}"'),
    "any": field({}, anything),
    "free": field({"type": "object"}, orderly),
    "place": field(INNER, inner),
    "tags": field({"type": "array", "items": STRING}, some(plain_text)),
    "points": field({"type": "array", "items": {"type": "number"}}, some(number)),
    "places": field({"type": "array", "items": INNER}, some(inner, 3)),
    "grid": field({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, some(some(integer))),
    "sparse": field(STRING, plain_text, absent=0.7),
    "a.b c'd": field({"type": "integer"}, integer),
}  # fmt: skip


def schema_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: described[0] for name, described in fields.items()}}


def line(number: int, fields: dict[str, Any], dice: Dice, *, shuffles: bool, spaces: bool, undeclared: float) -> bytes:
    pairs = []
    for name, (_, usual, odd_share, null, absent) in fields.items():
        if dice.random() < absent:
            continue
        roll = dice.random()
        value = odd(dice) if roll < odd_share else "null" if roll < odd_share + null else usual(dice)
        pairs.append((name, value))
    if dice.random() < undeclared:
        pairs.insert(dice.randrange(len(pairs) + 1), ("undeclared", anything(dice, 2)))
    if dice.random() < 0.005:
        pairs.append(dice.choice(pairs))
    if shuffles:
        dice.shuffle(pairs)
    comma, colon = (", ", ": ") if spaces else (",", ":")
    data = "{" + comma.join(f"{json.dumps(name)}{colon}{value}" for name, value in pairs) + "}"
    at = 1_700_000_000_000 + 1000 * number
    parts = [f'"stream"{colon}"s"', f'"data"{colon}{data}', f'"emitted_at"{colon}{at}']
    record = "{" + comma.join(parts) + "}"
    return f'{{"type"{colon}"RECORD"{comma}"record"{colon}{record}}}'.encode()


def lines_of(fields: dict[str, Any], dice: Dice, rows: int, **how: Any) -> list[bytes]:
    usual = {"shuffles": False, "spaces": False, "undeclared": 0.05, **how}
    return [line(n, fields, dice, **usual) for n in range(rows)]


@pytest.mark.parametrize("how", [{}, {"spaces": True}, {"undeclared": 1.0}, {"shuffles": True}], ids=str)
def test_lines_of_every_type_are_what_the_exact_path_says(tmp_path: Path, how: dict[str, Any]):
    columns = columns_of(schema_of(FIELDS))
    lines = lines_of(FIELDS, random.Random(repr(how)), ROWS // 4, **how)
    _, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)


def test_types_by_configuration_are_what_the_exact_path_says(tmp_path: Path):
    columns = columns_of(schema_of(FIELDS), number="decimal", integer_overflow="decimal", nested="json")
    lines = lines_of(FIELDS, random.Random(3), ROWS // 4)
    _, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)


@pytest.mark.parametrize("name", FIELDS)
def test_a_single_field_with_many_odd_values_is_what_the_exact_path_says(tmp_path: Path, name: str):
    schema, usual, _, null, absent = FIELDS[name]
    fields = {"id": FIELDS["id"], name: field(schema, usual, odd_share=0.3, null=null, absent=absent)}
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(name), ROWS // 6)
    _, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)


def test_most_ordinary_lines_take_the_fast_path(tmp_path: Path):
    usual = {**FIELDS, "amount": field(NUMBER, cents), "points": field({"type": "array", "items": NUMBER}, some(cents))}
    fields = {name: field(schema, make, odd_share=0.0, absent=absent) for name, (schema, make, _, _, absent)
              in usual.items() if name not in ("body", "any", "place", "places")
        }  # fmt: skip
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(7), 2000, undeclared=0.0)
    made, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)
    assert made.exact_rows < 100


def test_fields_may_have_any_name_that_the_fast_path_uses_itself(tmp_path: Path):
    names = ("n", "raw", "line", "record", "data", "keep", "kept", "changes", "rowid", "is_exact", "emitted_at", "x1")
    fields = {name: field({"type": "integer"}, integer, odd_share=0.05) for name in names}
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(3), 500)
    _, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)


MANY = {f"{name} {n}": (schema, make, 0.002, null, 0.0) for n in range(8)
        for name, (schema, make, _, null, _) in FIELDS.items() if name not in ("body", "any", "place", "places")
        }  # fmt: skip


@pytest.mark.parametrize("unit", ["us", "ms"])
def test_rows_of_many_columns_go_value_by_value_and_are_the_same_with_more_memory(tmp_path: Path, unit: str):
    columns = columns_of(schema_of(MANY), timestamp_unit=unit)
    lines = lines_of(MANY, random.Random(9), 150)
    assert 512 < memory_for(columns) < 2048
    made, read = through(tmp_path, lines, columns)
    if unit == "us":
        compare(lines, read, columns)
    assert made.exact_rows == 150
    assert {path.name for path in tmp_path.iterdir()} == {"lines.jsonl", "out"}
    more = tmp_path / "more"
    more.mkdir()
    usual, again = through(more, lines, columns, memory_limit_mb=2048)
    assert (usual.exact_rows < 150) == (unit == "us"), "most rows have a time that is no millisecond"
    assert usual.hashes.tolist() == made.hashes.tolist()
    for row in (*read, *again):
        del row["_airbyte_raw_id"]
    assert again == read
    types = [pq.read_schema(one.files[0].path).to_string().replace(" not null", "") for one in (made, usual)]
    assert types[0] == types[1]


def test_a_line_of_many_columns_that_is_no_record_is_named_by_its_row(tmp_path: Path):
    columns = columns_of(schema_of(MANY))
    lines = lines_of(MANY, random.Random(9), 20)
    lines[13] = b'{"type":"RECORD","record":{"stream":"s","data":{'
    with pytest.raises(UnusableLineError) as caught:
        through(tmp_path, lines, columns)
    assert caught.value.row == 13
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_lines_for_which_the_memory_is_not_enough_after_all_go_value_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ingest_module, "COLUMN_MB", 0)
    fields = {f"column_{n}": field(STRING, plain_text, odd_share=0.001) for n in range(300)}
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(2), 700, undeclared=0.0)
    made, read = through(tmp_path, lines, columns, memory_limit_mb=256)
    compare(lines, read, columns)
    assert made.exact_rows == 700


THOUSAND = {f"column_{n}": field(*[({"type": "integer"}, integer), (STRING, plain_text)][n % 2]) for n in range(1000)}


@pytest.mark.parametrize("kind", [JsonlFormat(format_type="jsonl"), CsvFormat(format_type="csv")])
def test_a_thousand_columns_are_written_as_text_with_the_default_memory(tmp_path: Path, kind: Format):
    columns = columns_of(schema_of(THOUSAND))
    spooled = tmp_path / "lines.jsonl"
    spooled.write_bytes(b"".join(line + b"\n" for line in lines_of(THOUSAND, random.Random(2), 300)))
    files = FileOptions(kind, memory_limit_mb=512, columns=tuple(column.name for column in columns))
    options = WriteOptions(files, "keep", memory_limit_mb=512, temp_directory=tmp_path)
    made = ingest(IngestJob(STREAM, spooled, 300, 1 << 20, tmp_path / "out", columns, 0, 0, options))
    [written] = made.files
    assert written.rows == len(written.path.read_bytes().splitlines()) == 300


def test_a_thousand_columns_are_written_with_the_default_memory(tmp_path: Path):
    columns = columns_of(schema_of(THOUSAND))
    lines = lines_of(THOUSAND, random.Random(2), 250)
    made, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)
    assert made.exact_rows == 250


def test_long_lines_among_short_ones_go_one_by_one_and_keep_their_places(tmp_path: Path):
    fields = {"id": FIELDS["id"], "name": FIELDS["name"]}
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(5), 300, undeclared=0.0)
    for number in (0, 150, 299):
        lines[number] = lines[number].replace(b'"data":{', b'"data":{"undeclared":"%s",' % (b"x" * (3 << 20)))
    made, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)
    assert made.exact_rows < 50


@pytest.mark.parametrize("few", [0.5, 0.0], ids=["between", "sorted"])
def test_few_lines_of_other_shapes_keep_their_places_in_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: float
):
    monkeypatch.setattr(ingest_module, "FEW_OTHERS", few)
    fields = {name: field(schema, make, odd_share=0.003, null=null, absent=absent)
              for name, (schema, make, _, null, absent) in FIELDS.items()
              if name not in ("body", "any", "place", "places")}  # fmt: skip
    columns = columns_of(schema_of(fields))
    lines = lines_of(fields, random.Random(4), 7000)
    made, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)
    assert 0 < made.exact_rows < 3500
    ids = [row.pop("_airbyte_raw_id") for row in read]
    assert ids == sorted(set(ids))
    second = np.arange(len(lines)) % 2 == 1
    (tmp_path / "second").mkdir()
    _, kept = through(tmp_path / "second", lines, columns, keep=lambda _: second)
    ids = [row.pop("_airbyte_raw_id") for row in kept]
    assert ids == sorted(set(ids))
    assert kept == read[1::2]


def test_lines_of_several_shapes_are_read_by_each_of_them_and_keep_their_places(tmp_path: Path):
    dice = random.Random(11)
    shapes = [{name: FIELDS[name] for name in names} for names in (("id", "name"), ("name", "id"), ("day", "id"))]
    columns = columns_of(schema_of({**shapes[0], **shapes[2]}))
    kinds = dice.choices((0, 1, 2), weights=(60, 30, 10), k=9000)
    lines = [
        line(number, shapes[kind], dice, shuffles=False, spaces=False, undeclared=0.0)
        for number, kind in enumerate(kinds)
    ]
    made, read = through(tmp_path, lines, columns)
    compare(lines, read, columns)
    assert made.exact_rows < 1000
