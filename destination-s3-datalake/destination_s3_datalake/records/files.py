"""A table of rows in DuckDB -> closed local files of the configured format.

Parquet is written with its types. JSONL and CSV are written as their SerDe in Athena reads them:

- JSONL (OpenX JSON SerDe): keys are the column names; decimals are JSON strings, since that SerDe reads numbers with a
  point as 64-bit floats; times are ``2026-01-01 00:00:00.5`` in UTC, as Hive writes them.
- CSV (LazySimpleSerDe): no quotes and no header; ``\\`` before a comma or backslash, ``\\n`` and ``\\r`` for line
  breaks, ``\\N`` for NULL, nested values as JSON text. So every text survives, an empty one is not NULL, and a row is
  one line.
  Columns are known by their place: every file has all columns of the table, in the table's order, and a column that
  comes later comes last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import duckdb

from destination_s3_datalake.config import CsvFormat, Format, JsonlFormat, ParquetFormat
from destination_s3_datalake.records.database import buffers_mb, literal, quoted, table_of
from destination_s3_datalake.records.partitions import PartitionKey, Values, expression

MOST_ROWS = 1 << 30  # in a row group: its size in bytes is what ends it
SHARE_OF_MEMORY = 8  # a row group may take this part of the budget; DuckDB holds several
CODECS: dict[str, str] = {"none": "uncompressed", "lz4": "lz4_raw"}  # where DuckDB has other names
ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
ZONED, AS_TEXT = "TIMESTAMP WITH TIME ZONE", re.compile(r"TIMESTAMP|DECIMAL\(\d+, ?\d+\)")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How data files are written.

    Attributes:
        format: of the files.
        memory_limit_mb: the budget of the process.
        columns: all columns of the table in its order, for formats that know a column by its place.
        partitioning: keys; every file has rows of one partition only.
        target_file_mb: size at which a Parquet file ends and another begins; None for one file.
    """

    format: Format
    memory_limit_mb: int
    columns: tuple[str, ...] = ()
    partitioning: tuple[PartitionKey, ...] = ()
    target_file_mb: int | None = None

    @property
    def suffix(self) -> str:
        """How names of data files end; Hadoop's readers choose the codec by it."""
        match self.format:
            case ParquetFormat():
                return ".parquet"
            case JsonlFormat(compression=compression):
                return f".jsonl{ENDINGS[compression]}"
            case CsvFormat(compression=compression):
                return f".csv{ENDINGS[compression]}"
            case other:
                assert_never(other)


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A closed local file, and the partition its rows belong to."""

    path: Path
    rows: int
    values: Values = field(default=())


def write(
    database: duckdb.DuckDBPyConnection, query: str, folder: Path, options: FileOptions
) -> tuple[WrittenFile, ...]:
    """Write the rows of ``query`` into ``folder``, which is made, in their order; one partition after the other."""
    folder.mkdir()
    if not options.partitioning:
        return tuple(_copied(database, query, folder, options, name="0"))
    written: list[WrittenFile] = []
    types = _types(database, query)
    in_order, places = _sorted_by_partition(database, query, types, options.partitioning)
    is_wide = buffers_mb(types.values()) > options.memory_limit_mb // SHARE_OF_MEMORY
    waiting = folder.with_name(f"{folder.name}.partitions") if is_wide else None
    if is_wide:
        database.execute("SET threads = 1")  # each holds vectors of all columns
    with table_of(database, "partition_rows", in_order, file=waiting):
        for place, *values in places:
            rows = f'SELECT * EXCLUDE ("our place", "our row") FROM partition_rows WHERE "our place" = {int(place)}'
            written += _copied(database, rows, folder, options, name=str(place), values=tuple(values))
    return tuple(written)


def _copied(
    database: duckdb.DuckDBPyConnection,
    query: str,
    folder: Path,
    options: FileOptions,
    *,
    name: str,
    values: Values = (),
) -> list[WrittenFile]:
    """The rows as one file, or as several of the target size (their rows are not counted one by one)."""
    rendered, copy = rendering(database, query, options), copy_options(options)
    if options.target_file_mb is None:
        path = folder / f"{name}{options.suffix}"
        [[rows]] = database.execute(f"COPY ({rendered}) TO {literal(path)} ({copy})").fetchall()
        return [WrittenFile(path, int(rows), values)]
    several = folder / name
    database.execute(f"COPY ({rendered}) TO {literal(several)} ({copy}, FILE_SIZE_BYTES '{options.target_file_mb}MB')")
    return [WrittenFile(path, 0, values) for path in sorted(several.iterdir())]


def _sorted_by_partition(
    database: duckdb.DuckDBPyConnection, query: str, types: Mapping[str, str], keys: Sequence[PartitionKey]
) -> tuple[str, list[tuple[Any, ...]]]:
    """A query of the rows, partition after partition; and each partition's place and values.

    COPY's own PARTITION_BY does not keep the order of rows, and ends no file at a size.
    """
    names = [quoted(f"our key {number}") for number in range(len(keys))]  # no column's name has a blank
    values = [expression(key, quoted(key.column), types.get(key.column)) for key in keys]
    parts = ", ".join(f"{value} AS {name}" for value, name in zip(values, names, strict=True))
    listed = ", ".join(names)
    database.execute(
        f'CREATE OR REPLACE TEMP TABLE partition_places AS SELECT row_number() OVER () AS "our place", * FROM '
        f"(SELECT DISTINCT {parts} FROM ({query}) ORDER BY ALL)"
    )
    in_order = (
        f'SELECT r.* EXCLUDE ({listed}), "our place" FROM '
        f'(SELECT *, row_number() OVER () AS "our row", {parts} FROM ({query})) r '
        f'JOIN partition_places USING ({listed}) ORDER BY "our place", "our row"'
    )
    places = database.execute(f'SELECT "our place", {listed} FROM partition_places ORDER BY "our place"').fetchall()
    return in_order, places


def _types(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in database.execute(f"DESCRIBE {query}").fetchall()}


def copy_options(options: FileOptions) -> str:
    """The options of COPY."""
    match options.format:
        case ParquetFormat() as parquet:
            group = min(parquet.row_group_mb << 20, (options.memory_limit_mb << 20) // SHARE_OF_MEMORY)
            parts = [
                "FORMAT parquet",
                f"COMPRESSION {CODECS.get(parquet.compression, parquet.compression)}",
                f"ROW_GROUP_SIZE {MOST_ROWS}",
                f"ROW_GROUP_SIZE_BYTES {group}",
                f"DATA_PAGE_SIZE_LIMIT {parquet.page_kb << 10}",
                f"WRITE_BLOOM_FILTER {str(parquet.bloom_filters).lower()}",
            ]
            return ", ".join(parts if parquet.dictionary else [*parts, "DICTIONARY_SIZE_LIMIT 0"])
        case JsonlFormat(compression=compression):
            return f"FORMAT json, COMPRESSION {CODECS.get(compression, compression)}"
        case CsvFormat(compression=compression):
            return (
                f"FORMAT csv, COMPRESSION {CODECS.get(compression, compression)}, HEADER false, DELIMITER ',', "
                r"QUOTE '', ESCAPE '', NULLSTR '\N'"
            )
        case other:
            assert_never(other)


def rendering(database: duckdb.DuckDBPyConnection, query: str, options: FileOptions) -> str:
    """The query with its values as the format's readers expect them."""
    if isinstance(options.format, ParquetFormat):
        return query
    types = _types(database, query)
    if isinstance(options.format, JsonlFormat):
        parts = [f"{_as_json(name, kind)} AS {quoted(name)}" for name, kind in types.items()]
    else:
        parts = [_as_csv(name, types.get(name)) for name in options.columns]
    return f"SELECT {', '.join(parts)} FROM ({query})"


def _as_json(name: str, kind: str) -> str:
    """A value whose times are in UTC without saying so, and whose decimals are text."""
    without_zone = kind.replace(ZONED, "TIMESTAMP")
    as_text = AS_TEXT.sub("VARCHAR", without_zone)
    expression = quoted(name)
    for target in (without_zone, as_text):
        if target != kind:
            expression, kind = f"CAST({expression} AS {target})", target
    return expression


def _as_csv(name: str, kind: str | None) -> str:
    if kind is None:
        return f"NULL AS {quoted(name)}"  # a column of the table that these rows do not have
    text = _as_json(name, kind)
    if is_nested(kind):
        text = f"to_json({text})"
    text = f"CAST({text} AS VARCHAR)"
    for character, escape in (("'\\'", "'\\\\'"), ("','", "'\\,'"), ("chr(10)", "'\\n'"), ("chr(13)", "'\\r'")):
        text = f"replace({text}, {character}, {escape})"
    return f"{text} AS {quoted(name)}"


def is_nested(kind: str) -> bool:
    """Whether a type of DuckDB is a struct or a list."""
    return kind.startswith("STRUCT") or kind.endswith("]")


def by_place(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """``names`` with those that are ``known`` first and in that order."""
    present = set(names)
    return (*(name for name in known if name in present), *(name for name in names if name not in set(known)))
