"""DuckDB of this process: in memory, within a limit, spilling into the spool. Its errors become ours here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import assert_never

import duckdb

from destination_s3_datalake.errors import InternalError, TransientError
from destination_s3_datalake.records.schema import (
    Array,
    BigInt,
    Boolean,
    ColumnType,
    Date,
    Decimal,
    Double,
    Json,
    Struct,
    Text,
    Timestamp,
)

THREADS = 2
WAITING = "FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 2048, DICTIONARY_SIZE_LIMIT 0"  # of files of our own
LITTLE_MB = 128  # below, only one thread: reading JSON takes a buffer of 32 MB for each


@contextmanager
def open_database(*, memory_limit_mb: int, temp_directory: Path, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for one piece of work.

    Args:
        memory_limit_mb: what DuckDB may use; buffers outside it come on top.
        temp_directory: where it spills.
        what: the work, for messages.

    Raises:
        TransientError: the disk or the memory is full.
        InternalError: anything else that DuckDB refuses; never with its text, which may quote values.
    """
    try:
        with closing(_connect(memory_limit_mb, temp_directory)) as database:
            yield database
    except duckdb.OutOfMemoryException:
        raise TransientError(
            f"{what}: the memory limit is too small for these rows: raise memory_limit_mb, or give spool_directory "
            "more space."
        ) from None
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise TransientError("The spool's disk is full: give spool_directory more space.") from None
        raise InternalError(f"{what}: it could not be done.", kind=type(error).__name__) from None


@cache
def hash_function() -> int:
    """Which function ``hash`` is: DuckDB may change it from version to version, and then hashes do not compare.

    It is told by what it makes of a few values of each kind that is hashed.
    """
    values = "'a'", "'a text of more than twelve bytes'", "1", "-1.5::DOUBLE", "true", "DATE '2026-01-01'"
    nested = "{'a': [1, NULL]}", "[{'b': 'c'}]", "1.5::DECIMAL(38, 9)", "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
    answers = ", ".join(f"hash('name', {value})" for value in (*values, *nested))
    with closing(duckdb.connect(":memory:")) as database:
        row = database.execute(f"SELECT hash({answers})").fetchall()[0]
    return int(row[0])


def buffers_mb(types: Iterable[str]) -> float:
    """The memory that a table of these types holds while rows are added, and that cannot be spilled.

    It is a buffer of 256 kB for each column (of a struct: for each field) and thread, whatever the rows need.
    """
    return THREADS * sum(1 + kind.count(", ") for kind in types) / 4


@contextmanager
def table_of(database: duckdb.DuckDBPyConnection, name: str, query: str, *, file: Path | None) -> Iterator[None]:
    """A table of the rows of a query, in their order; in a file if its buffers would not fit into memory."""
    if file is None:
        database.execute(f"CREATE TEMP TABLE {name} AS {query}")
        yield
        database.execute(f"DROP TABLE {name}")
        return
    types = database.execute(f"DESCRIBE {query}").fetchall()
    try:
        database.execute(f"COPY ({query}) TO {literal(file)} ({WAITING})")
        # Types come back as they were, those that Parquet does not know, too.
        columns = ", ".join(f"CAST({quoted(row[0])} AS {row[1]}) AS {quoted(row[0])}" for row in types)
        rows = f"SELECT {columns} FROM read_parquet({literal(file)})"
        database.execute(f"CREATE TEMP VIEW {name} AS {rows}")
        yield
        database.execute(f"DROP VIEW {name}")
    finally:
        file.unlink(missing_ok=True)


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def duck_type(kind: ColumnType) -> str:
    """The type that holds a column's values."""
    match kind:
        case Boolean():
            return "BOOLEAN"
        case BigInt():
            return "BIGINT"
        case Double():
            return "DOUBLE"
        case Decimal(precision, scale):
            return f"DECIMAL({precision},{scale})"
        case Text() | Json():
            return "VARCHAR"
        case Date():
            return "DATE"
        case Timestamp(unit="ms"):
            return "TIMESTAMP_MS"  # DuckDB has none with a zone
        case Timestamp(zoned):
            return "TIMESTAMPTZ" if zoned else "TIMESTAMP"
        case Struct(fields):
            return f"STRUCT({', '.join(f'{quoted(item.name)} {duck_type(item.type)}' for item in fields)})"
        case Array(item):
            return f"{duck_type(item)}[]"
        case other:
            assert_never(other)


def _connect(memory_limit_mb: int, temp_directory: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{max(64, memory_limit_mb)}MB",
            "temp_directory": str(temp_directory / "duckdb"),
            "threads": min(THREADS, os.cpu_count() or 1) if memory_limit_mb >= LITTLE_MB else 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    database.execute("SET TimeZone = 'UTC'")  # the text of times, and so the hashes, must not depend on the machine
    return database
