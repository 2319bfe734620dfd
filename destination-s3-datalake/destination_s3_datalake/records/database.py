"""DuckDB of this process: in memory, within a limit, spilling into the spool. Its errors become ours here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from destination_s3_datalake.errors import InternalError, TransientError

THREADS = 2


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


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def _connect(memory_limit_mb: int, temp_directory: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{max(64, memory_limit_mb)}MB",
            "temp_directory": str(temp_directory / "duckdb"),
            "threads": min(THREADS, os.cpu_count() or 1),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    database.execute("SET TimeZone = 'UTC'")  # the text of times, and so the hashes, must not depend on the machine
    return database
