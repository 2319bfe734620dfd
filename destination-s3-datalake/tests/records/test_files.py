"""Rows in DuckDB -> files of each format, and what a reader that follows the format's rules finds in them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from destination_s3_datalake.config import CsvFormat, JsonlFormat, ParquetFormat
from destination_s3_datalake.records import files, text_files
from destination_s3_datalake.records.database import open_database
from destination_s3_datalake.records.files import FileOptions
from hypothesis import given, settings
from hypothesis import strategies as st

COMPRESSIONS: Any = ("none", "gzip", "zstd")
VALUES = """SELECT 9007199254740993::BIGINT AS i, 12345678901234567890.123456789::DECIMAL(38, 9) AS d, 0.1::DOUBLE AS f,
    true AS b, DATE '0001-01-01' AS day, TIMESTAMPTZ '2026-01-01 02:00:00.5+02' AS zoned,
    TIMESTAMP '9999-12-31 23:59:59.999999' AS plain, '' AS empty, NULL::VARCHAR AS none,
    {'n': 1.5::DECIMAL(38, 9), 'at': [TIMESTAMPTZ '2026-01-01 00:00:00+00'], 't': 'x,"'} AS nested"""
TEXT = st.text(st.one_of(st.sampled_from('\\,"\n\rNn{}\u0001 \t\u2028\x00'), st.characters(exclude_categories=["Cs"])))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(memory_limit_mb=128, temp_directory=tmp_path, what="A test") as found:
        yield found


def lines(path: Path) -> list[bytes]:
    body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    body = pa.input_stream(str(path), compression="zstd").read() if path.suffix == ".zst" else body
    return body.split(b"\n")[:-1]


def fields(line: bytes) -> list[str | None]:
    """As Hive's LazySimpleSerDe: split at commas that are not escaped, then NULL, then escapes."""
    out: list[str | None] = []
    text, place = line.decode(), 0
    while place <= len(text):
        start, value = place, ""
        while place < len(text) and text[place] != ",":
            if text[place] == "\\":
                place += 1
                value += {"n": "\n", "r": "\r"}.get(text[place], text[place])
            else:
                value += text[place]
            place += 1
        out.append(None if text[start:place] == r"\N" else value)
        place += 1
    return out


def options(form: Any, *columns: str) -> FileOptions:
    return FileOptions(form, memory_limit_mb=128, columns=columns)


def written(database: duckdb.DuckDBPyConnection, query: str, folder: Path, chosen: FileOptions) -> Path:
    (file,) = files.write(database, query, folder / f"out{chosen.suffix}", chosen)
    return file.path


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_jsonl_holds_every_value_as_the_openx_serde_reads_it(database: Any, tmp_path: Path, compression: Any):
    path = written(database, VALUES, tmp_path, options(JsonlFormat(format_type="jsonl", compression=compression)))
    (line,) = lines(path)
    assert json.loads(line) == {
        "i": 9007199254740993, "d": "12345678901234567890.123456789", "f": 0.1, "b": True, "day": "0001-01-01",
        "zoned": "2026-01-01 00:00:00.5", "plain": "9999-12-31 23:59:59.999999", "empty": "", "none": None,
        "nested": {"n": "1.500000000", "at": ["2026-01-01 00:00:00"], "t": 'x,"'},
    }  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_csv_holds_every_value_as_hives_serde_reads_it(database: Any, tmp_path: Path, compression: Any):
    names = ("i", "dropped", "d", "f", "b", "day", "zoned", "plain", "empty", "none", "nested")
    chosen = options(CsvFormat(format_type="csv", compression=compression), *names)
    (line,) = lines(written(database, VALUES, tmp_path, chosen))
    assert fields(line) == [
        "9007199254740993", None, "12345678901234567890.123456789", "0.1", "true", "0001-01-01",
        "2026-01-01 00:00:00.5", "9999-12-31 23:59:59.999999", "", None,
        '{"n":"1.500000000","at":["2026-01-01 00:00:00"],"t":"x,\\""}',
    ]  # fmt: skip


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(st.none() | TEXT, st.none() | TEXT), min_size=1, max_size=5))
def test_every_text_survives_jsonl_and_csv(tmp_path_factory: Any, rows: list[tuple[str | None, str | None]]):
    folder = tmp_path_factory.mktemp("text")
    with open_database(memory_limit_mb=128, temp_directory=folder, what="A test") as database:
        database.register("texts", pa.table({"a": pa.array([r[0] for r in rows], pa.string()),
                                             "b": pa.array([r[1] for r in rows], pa.string())}))  # fmt: skip
        query = "SELECT a, b FROM texts"
        csv = written(database, query, folder, options(CsvFormat(format_type="csv"), "a", "b"))
        jsonl = written(database, query, folder, options(JsonlFormat(format_type="jsonl")))
    assert [tuple(fields(line)) for line in lines(csv)] == rows
    assert [tuple(json.loads(line).values()) for line in lines(jsonl)] == rows


def test_parquet_is_written_as_configured(database: Any, tmp_path: Path):
    query = "SELECT (i % 10)::VARCHAR AS t, md5(i::VARCHAR) AS hash FROM range(200_000) q(i)"
    plain = ParquetFormat(format_type="parquet", row_group_mb=1, page_kb=8, dictionary=False, bloom_filters=False)
    chosen = [options(ParquetFormat(format_type="parquet")), options(plain)]
    seen = []
    for number, each in enumerate(chosen):
        (tmp_path / str(number)).mkdir()
        path = written(database, query, tmp_path / str(number), each)
        column = database.execute(
            "SELECT encodings, bloom_filter_length IS NOT NULL FROM parquet_metadata(?) WHERE path_in_schema = 't'",
            [str(path)],
        ).fetchall()[0]
        seen.append((pq.read_metadata(path).num_row_groups, path.stat().st_size, *column))
    assert seen[0][0] == 1
    assert seen[1][0] > 4
    assert seen[1][1] > seen[0][1]
    assert ("DICTIONARY" in seen[0][2], seen[0][3]) == (True, True)
    assert ("DICTIONARY" in seen[1][2], seen[1][3]) == (False, False)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv.gz", ".csv.zst"])
def test_text_files_are_joined_whatever_their_compression(tmp_path: Path, suffix: str):
    parts = []
    for number, ending in enumerate(["", ".gz", ".zst"]):
        parts.append(tmp_path / f"{number}.csv{ending}")
        with pa.output_stream(str(parts[-1]), compression="detect") as stream:
            stream.write(b"".join(b"%d\n" % n for n in range(number * 1000, number * 1000 + 1000)))
    target = tmp_path / "joined"
    target.mkdir()
    text_files.join(parts, target, suffix=suffix, target_bytes=1 << 20)
    (joined,) = target.iterdir()
    assert joined.name.endswith(suffix)
    assert [int(line) for line in lines(joined)] == list(range(3000))


def test_joined_text_files_are_full_ones(tmp_path: Path):
    parts = [tmp_path / f"{number}.jsonl" for number in range(6)]
    for part in parts:
        part.write_bytes(b"x" * (3 << 20) + b"\n")
    (tmp_path / "joined").mkdir()
    text_files.join(parts, tmp_path / "joined", suffix=".jsonl", target_bytes=5 << 20)
    assert sorted(len(lines(path)) for path in (tmp_path / "joined").iterdir()) == [2, 2, 2]


def test_fields_of_a_csv_file_can_change_places(tmp_path: Path):
    source, target = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    source.write_bytes(b"1,\\N,x\\,y\\\\\n2,,\n3\n")
    text_files.with_places(source, target, [2, None, 0, 1])
    assert [fields(line) for line in lines(target)] == [
        ["x,y\\", None, "1", None],
        ["", None, "2", ""],
        [None, None, "3", None],
    ]


def test_decimals_of_a_parquet_file_stay_decimals(database: Any, tmp_path: Path):
    path = written(database, VALUES, tmp_path, options(ParquetFormat(format_type="parquet")))
    assert pq.read_table(path)["d"].to_pylist() == [Decimal("12345678901234567890.123456789")]
