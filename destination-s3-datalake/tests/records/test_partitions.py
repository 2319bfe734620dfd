"""Partition values: paths that can be read back, buckets that never change, and files that hold one partition each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from destination_s3_datalake.config import ParquetFormat, Partition, TypeOptions
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.records import files
from destination_s3_datalake.records.database import open_database
from destination_s3_datalake.records.evolution import plan_columns
from destination_s3_datalake.records.files import FileOptions
from destination_s3_datalake.records.partitions import (
    NULL,
    PartitionKey,
    escaped,
    partition_keys,
    path_of,
    unescaped,
    values_of,
)
from hypothesis import given
from hypothesis import strategies as st

ROWS = 3000
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(values=st.lists(TEXT, min_size=1, max_size=3))
def test_values_come_back_from_a_path_whose_parts_readers_can_split(values: list[str]):
    keys = [PartitionKey(name=f"k{number}", column="c", transform="identity") for number in range(len(values))]
    path = path_of(keys, tuple(values))
    assert values_of(path) == tuple(values)
    assert [part.split("=")[0] for part in path.split("/")] == [key.name for key in keys]
    assert path.isprintable() or not any(ord(c) < 32 or c == "\x7f" for c in path)


def test_paths_are_escaped_as_hive_escapes_them():
    assert escaped("a/b=c%d:e\n\"f'*?\\{g}[h]^#\x7f ä~&") == (
        "a%2Fb%3Dc%25d%3Ae%0A%22f%27%2A%3F%5C%7Bg%7D%5Bh%5D%5E%23%7F ä~&"
    )
    assert unescaped("%2F%5e%zz%") == "/%5e%zz%"


def test_a_path_that_s3_does_not_take_is_refused_without_its_value():
    key = PartitionKey(name="key", column="secret_column", transform="identity")
    with pytest.raises(ConfigError, match="secret_column") as caught:
        path_of([key], ("x%" * 300,))
    assert "x%" not in caught.value.message


@pytest.mark.parametrize(
    ("kind", "transforms"),
    [
        ({"type": "string"}, {"identity", "truncate[3]", "bucket[8]"}),
        ({"type": "integer"}, {"identity", "truncate[3]", "bucket[8]"}),
        ({"type": "string", "format": "date"}, {"identity", "bucket[8]", "year", "month", "day"}),
        ({"type": "string", "format": "date-time"}, {"identity", "bucket[8]", "year", "month", "day", "hour"}),
        ({"type": "boolean"}, {"identity", "bucket[8]"}),
        ({"type": "number"}, set()),
        ({"type": "object"}, set()),
        ({"type": "array", "items": {"type": "integer"}}, set()),
    ],
)
def test_a_type_has_the_transforms_that_mean_something_for_it(kind: Any, transforms: set[str]):
    columns = plan_columns(
        {"properties": {"f": kind}}, sources=(), known_names={}, stream="s", options=TypeOptions()
    ).columns
    fits = set()
    for transform in ("identity", "year", "month", "day", "hour", "truncate[3]", "bucket[8]"):
        wanted = [Partition(stream="s", field="f", transform=transform, name="key")]
        try:
            partition_keys(wanted, columns, known_names={}, exists=False, stream="s")
        except ConfigError:
            continue
        fits.add(transform)
    assert fits == transforms


def test_a_name_can_be_taken_by_one_key_only():
    columns = plan_columns(
        {"properties": {"f": {"type": "string"}}}, sources=(), known_names={}, stream="s", options=TypeOptions()
    ).columns
    wanted = [Partition(stream="s", field="f", transform=each, name="key") for each in ("identity", "bucket[2]")]
    with pytest.raises(ConfigError, match="taken"):
        partition_keys(wanted, columns, known_names={}, exists=False, stream="s")


def test_rows_lie_in_their_partition_in_the_order_of_arrival_and_buckets_never_change(tmp_path: Path):
    keys = (
        PartitionKey(name="bucket", column="i", transform="bucket[3]"),
        PartitionKey(name="first", column="t", transform="truncate[1]"),
    )
    options = FileOptions(ParquetFormat(format_type="parquet"), memory_limit_mb=128, partitioning=keys)
    query = (
        "SELECT i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'äb' || i END AS t, i AS rowid, i AS n "
        f"FROM (SELECT (i * 7919) % {ROWS} AS i FROM range({ROWS}) q(i))"
    )
    with open_database(memory_limit_mb=128, temp_directory=tmp_path, what="A test") as database:
        arrival = [row[0] for row in database.execute(query).fetchall()]
        written = files.write(database, query, tmp_path / "out", options)
    assert sum(file.rows for file in written) == ROWS
    assert {file.values for file in written} == {(b, f) for b in "012" for f in (NULL, "ä")}
    places = {number: place for place, number in enumerate(arrival)}
    bucket_of = {}
    for file in written:
        found = pq.read_table(file.path)
        assert found.column_names == ["i", "t", "rowid", "n"]
        numbers = found["i"].to_pylist()
        assert [places[number] for number in numbers] == sorted(places[number] for number in numbers)
        bucket_of.update(dict.fromkeys(numbers, file.values[0]))
    assert "".join(bucket_of[number] for number in range(20)) == GOLDEN


GOLDEN = "10021211210012122010"  # rows of one bucket would be in two partitions if this changed


def test_rows_of_a_thousand_columns_wait_for_their_partition_in_a_file(tmp_path: Path):
    keys = (PartitionKey(name="half", column="i", transform="bucket[2]"),)
    options = FileOptions(ParquetFormat(format_type="parquet"), memory_limit_mb=512, partitioning=keys)
    more = ", ".join(f"CASE WHEN i % 3 = 0 THEN NULL ELSE i + {n} END AS c{n}" for n in range(1000))
    query = f"SELECT i, to_timestamp(i)::TIMESTAMP_MS AS at, {more} FROM range(3000) q(i)"
    with open_database(memory_limit_mb=256, temp_directory=tmp_path, what="A test") as database:
        written = files.write(database, query, tmp_path / "out", options)
        again = files.write(database, query, tmp_path / "again", options)
    assert [file.rows for file in again] == [file.rows for file in written]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "again"}
    rows = [row for file in written for row in pq.read_table(file.path).to_pylist()]
    assert sorted(row["i"] for row in rows) == list(range(3000))
    assert all(row["c999"] == (None if row["i"] % 3 == 0 else row["i"] + 999) for row in rows)
    assert str(pq.read_schema(written[0].path).field("at").type) == "timestamp[ms]"


def test_a_partition_larger_than_a_file_becomes_several(tmp_path: Path):
    keys = (PartitionKey(name="half", column="i", transform="bucket[2]"),)
    options = FileOptions(
        ParquetFormat(format_type="parquet", compression="none", row_group_mb=1),
        memory_limit_mb=128, partitioning=keys, target_file_mb=1,
    )  # fmt: skip
    with open_database(memory_limit_mb=128, temp_directory=tmp_path, what="A test") as database:
        query = "SELECT i, md5(i::VARCHAR) || md5((i + 1)::VARCHAR) AS t FROM range(100_000) q(i)"
        written = files.write(database, query, tmp_path / "out", options)
    assert {file.values for file in written} == {("0",), ("1",)}
    assert len(written) > 4
    assert sum(pq.read_metadata(file.path).num_rows for file in written) == 100_000
