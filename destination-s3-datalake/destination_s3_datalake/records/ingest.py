"""Spooled record lines of one stream -> closed data files, each value exactly as ``values.py`` decides.

Two paths, one meaning. Lines of the stream's usual shape are read by DuckDB, column by column, and proved to be read
exactly (``shape.py``); those that are not are tried with the shape that they share; what is left goes value by value
(``exact.py``). Rows keep their order of arrival. They wait in a DuckDB temporary table that spills to the spool's
folder, are hashed, and written by DuckDB's own COPY (``files.py``), which stays within its limit.

What DuckDB needs to read lines grows with their columns, and cannot be spilled: vectors of 2048 values for each step of
each column, and a buffer of 256 kB for each column of a table. Lines of more columns than the memory allows go value by
value, and wait in files.

The hash of a row is over what is stored of its record, the originals in ``_airbyte_extra`` included, and neither times
nor ids: the same record gives the same hash in every try, and in every order of its fields.
"""

from __future__ import annotations

import heapq
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from destination_s3_datalake.errors import InternalError
from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.records import files, shape
from destination_s3_datalake.records.database import WAITING, duck_type, literal, open_database, quoted
from destination_s3_datalake.records.schema import Array, Column, ColumnType, Struct
from destination_s3_datalake.records.values import Undeclared

Hashes = NDArray[np.uint64]
EXTRACTED_AT, META, EXTRA = "_airbyte_extracted_at", "_airbyte_meta", "_airbyte_extra"
# No column of a table has a blank in its name.
NUMBER, CHANGES, RAW, JSON_VALUES, IS_EXACT, NEXT = (
    f'"our {name}"' for name in ("number", "changes", "raw", "json", "proof", "next")
)
CHANGES_TYPE = "STRUCT(field VARCHAR, change VARCHAR, reason VARCHAR)[]"
SAMPLE_PLACES, SAMPLE_LINES = 5, 40
MOST_SHAPES = 4
FEW_LINES = 500  # not worth another shape
FEW_OTHERS, FEW_BYTES = 1e-3, 16 << 20  # lines of other shapes whose rows are put between those of one shape
USUAL_LINE_BYTES = 2 << 20
DUCKDB_SHARE = 2  # DuckDB gets one of so many parts of the memory
# MB that DuckDB needs to read lines, and for each value in a row; measured (`make bench-memory`).
READING_MB, COLUMN_MB = 50, 1.4

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How files are written."""

    files: files.FileOptions
    undeclared_fields: Undeclared
    memory_limit_mb: int
    temp_directory: Path


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What to convert. ``lines`` holds ``rows`` RECORD lines of one stream, each with its newline; sizes in bytes.

    ``target`` is a folder that is made for the files.
    """

    stream: StreamId
    lines: Path
    rows: int
    longest_line: int
    target: Path
    columns: tuple[Column, ...]
    generation_id: int
    sync_id: int
    options: WriteOptions


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was written. ``hashes`` and ``kept`` have one item per input row, in order; the files hold the kept ones.

    ``exact_rows`` went value by value.
    """

    files: tuple[files.WrittenFile, ...]
    hashes: Hashes
    kept: NDArray[np.bool_]
    changed_rows: int
    exact_rows: int
    has_extra: bool


def keep_all(hashes: Hashes) -> NDArray[np.bool_]:
    """Every row is stored."""
    return np.ones(len(hashes), dtype=np.bool_)


def memory_for(columns: Iterable[Column]) -> int:
    """The ``memory_limit_mb`` with which lines of these columns are read column by column; below, value by value."""
    return DUCKDB_SHARE * int(READING_MB + COLUMN_MB * sum(_values_of(column.type) for column in columns))


def _values_of(kind: ColumnType) -> int:
    """How many values a row has in a column of this type, one of each array."""
    match kind:
        case Struct(fields):
            return 1 + sum(_values_of(item.type) for item in fields)
        case Array(item):
            return 1 + _values_of(item)
        case _:
            return 1


def ingest(job: IngestJob, keep: Callable[[Hashes], NDArray[np.bool_]] = keep_all) -> Ingested:
    """Convert a file of lines. ``keep`` gets the hashes of all rows in order and says which are stored.

    No file is written if none is.

    Raises:
        UnusableLineError: a line is no record of the stream.
        DataError: a record cannot be taken; names its field at most.
        TransientError: the disk is full.
    """
    options = job.options
    folder = job.target.with_name(f"{job.target.name}.rows")
    try:
        with open_database(
            memory_limit_mb=options.memory_limit_mb // DUCKDB_SHARE,
            temp_directory=options.temp_directory,
            what="Writing a file",
        ) as database:
            return _written(job, database, _made_within_memory(job, database, folder), keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Made:
    """What is known of ``rows``: NUMBER, the job's columns, EXTRACTED_AT, EXTRA and CHANGES, in order of arrival."""

    changed_rows: int
    exact_rows: int


@dataclass(frozen=True, slots=True)
class _Lines:
    """A file of lines that are in no row yet. ``numbers`` is the table of their places in the input, in their order."""

    path: Path
    rows: int
    numbers: str | None = None


def _made_within_memory(job: IngestJob, database: duckdb.DuckDBPyConnection, folder: Path) -> _Made:
    """Make ``rows`` in the way that the memory allows; what it is enough for is an estimate."""
    if memory_for(job.columns) <= job.options.memory_limit_mb:
        try:
            return _make_rows(job, database)
        except duckdb.OutOfMemoryException:
            for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                database.execute(f"DROP TABLE {quoted(name)}")
    return _make_wide_rows(job, database, folder)


def _written(
    job: IngestJob, database: duckdb.DuckDBPyConnection, made: _Made, keep: Callable[[Hashes], NDArray[np.bool_]]
) -> Ingested:
    """Write those of the rows that are kept."""
    hashes = _hashes(job, database)
    kept = keep(hashes)
    rows = int(kept.sum())
    # Everything is fetched: DuckDB refuses other work on a connection while a result has rows left.
    has_extra = bool(database.execute(f"SELECT count({EXTRA}) > 0 FROM rows").fetchall()[0][0])
    written = _copy(job, database, None if rows == job.rows else kept) if rows else ()
    return Ingested(written, hashes, kept, made.changed_rows, made.exact_rows, has_extra)


def _make_rows(job: IngestJob, database: duckdb.DuckDBPyConnection) -> _Made:
    """Make ``rows``: by the shape of most lines, by that of most of the rest, and so on; then one by one."""
    names = [*(_held(column.name) for column in job.columns), EXTRACTED_AT, EXTRA]
    columns = ", ".join(names)
    parts: list[str] = []
    has_few_others = False
    waiting, long = _without_long_lines(job, database)
    for level in range(MOST_SHAPES):
        found = shape.learn(_sample(waiting.path), job.stream, job.columns, job.options.undeclared_fields)
        if found is None or not _read(database, found, waiting, f"shaped_{level}"):
            break
        before, waiting = waiting, _left_over(job, database, waiting, level)
        if not level:
            size = waiting.path.stat().st_size if waiting.rows else 0
            has_few_others = not long and waiting.rows <= job.rows * FEW_OTHERS and size <= FEW_BYTES
        if not waiting.rows and not parts and not long:  # the usual case: all lines are of one shape
            rows = f"SELECT rowid AS {NUMBER}, {columns}, NULL::{CHANGES_TYPE} AS {CHANGES} FROM shaped_0"
            database.execute(f"CREATE TEMP VIEW rows AS {rows}")
            return _Made(0, 0)
        source, number = _with_numbers(f"shaped_{level}", before)
        parts.append(f"SELECT {number} AS {NUMBER}, {columns}, NULL AS {CHANGES} FROM {source} WHERE {IS_EXACT}")
        if waiting.rows <= FEW_LINES or waiting.rows > before.rows // 2:
            break
    changed = _make_exact(job, database, waiting, long)
    parts.append(f"SELECT {NUMBER}, {columns}, {CHANGES} FROM exact")
    if has_few_others:
        _put_between(database, names, " UNION ALL ".join(parts[1:]))
    else:
        together = " UNION ALL ".join(parts)
        database.execute(f"CREATE TEMP TABLE rows AS SELECT * FROM ({together}) ORDER BY {NUMBER}")
    return _Made(changed, waiting.rows + len(long))


def _put_between(database: duckdb.DuckDBPyConnection, names: Sequence[str], others: str) -> None:
    """Make ``rows`` of the rows of one shape and a few others, each in its place.

    A second table of all rows would take the memory of the first again, and would have to be sorted; a join would move
    rows. So the others are lists in a single row, and each line of another shape takes the next item.
    """
    lists = ", ".join(f"list({name} ORDER BY {NUMBER}) AS {name}" for name in (NUMBER, *names, CHANGES))
    database.execute(f"CREATE TEMP TABLE others AS SELECT {lists} FROM ({others})")
    places = f"SELECT list(rowid ORDER BY rowid) FROM shaped_0 WHERE NOT {IS_EXACT}"
    if database.execute(f"SELECT {NUMBER} IS DISTINCT FROM ({places}) FROM others").fetchall() != [(False,)]:
        raise InternalError("Rows were lost or added between the lines of one shape and the others.")
    columns = ", ".join(f"CASE WHEN {IS_EXACT} THEN s.{name} ELSE o.{name}[{NEXT}] END AS {name}" for name in names)
    so_far = f"sum(CASE WHEN {IS_EXACT} THEN 0 ELSE 1 END) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    database.execute(
        f"""CREATE TEMP VIEW rows AS
        SELECT s.{NUMBER}, {columns}, CASE WHEN NOT {IS_EXACT} THEN o.{CHANGES}[{NEXT}] END AS {CHANGES}
        FROM (SELECT *, rowid AS {NUMBER}, {so_far}::BIGINT AS {NEXT} FROM shaped_0) s CROSS JOIN others o"""
    )


def _make_wide_rows(job: IngestJob, database: duckdb.DuckDBPyConnection, folder: Path) -> _Made:
    """Make the view ``rows`` of lines that all go value by value, and wait as files in ``folder``, which is made."""
    from destination_s3_datalake.records import exact

    folder.mkdir()
    database.execute("SET threads = 1")  # each holds vectors of all columns, when the rows are written, too
    lines = enumerate(_lines(job.lines))
    batches = exact.tables(lines, job.stream, job.columns, job.options.undeclared_fields)
    for number, batch in enumerate(batches):
        database.register("batch", batch)
        database.execute(f"COPY batch TO {literal(folder / f'{number:06d}.parquet')} ({WAITING})")
        database.unregister("batch")
    # Types come back as they were, but for those that Parquet does not know.
    held = [f"CAST({quoted(c.name)} AS {duck_type(c.type)}) AS {_held(c.name)}" for c in job.columns]
    columns = ", ".join([NUMBER, *held, EXTRACTED_AT, EXTRA, CHANGES])
    paths = ", ".join(literal(path) for path in sorted(folder.iterdir()))
    database.execute(f"CREATE TEMP VIEW rows AS SELECT {columns} FROM read_parquet([{paths}])")
    return _Made(int(database.execute(f"SELECT count({CHANGES}) FROM rows").fetchall()[0][0]), job.rows)


def _without_long_lines(job: IngestJob, database: duckdb.DuckDBPyConnection) -> tuple[_Lines, list[int]]:
    """The lines that DuckDB reads in buffers of usual size, and the places of the others, which go one by one."""
    if job.longest_line <= USUAL_LINE_BYTES:
        return _Lines(job.lines, job.rows), []
    path, long = job.options.temp_directory / f"{job.target.name}.short", []
    with path.open("wb") as file:
        for number, line in enumerate(_lines(job.lines)):
            if len(line) >= USUAL_LINE_BYTES:
                long.append(number)
            else:
                file.write(line + b"\n")
    listed = f" WHERE n NOT IN ({', '.join(map(str, long))})" if long else ""
    database.execute(f"CREATE TEMP TABLE short AS SELECT n AS {NUMBER} FROM range({job.rows}) t(n){listed}")
    return _Lines(path, job.rows - len(long), "short"), long


def _read(database: duckdb.DuckDBPyConnection, found: shape.Shape, lines: _Lines, table: str) -> bool:
    """Read lines as one shape; RAW are those of another. False if DuckDB refuses the file, or cuts it otherwise."""
    limit, where = USUAL_LINE_BYTES, literal(lines.path)
    stored = [f"{expression} AS {_held(name)}" for name, expression in found.values.items()]
    taken = ", ".join([*stored, f"{found.extracted_at} AS {EXTRACTED_AT}", f"{found.extra} AS {EXTRA}"])
    try:
        database.execute(
            f"""CREATE TEMP TABLE {table} AS
            SELECT {IS_EXACT}, CASE WHEN NOT {IS_EXACT} THEN line END AS {RAW},
                   CASE WHEN {IS_EXACT} THEN {found.json_values} END AS {JSON_VALUES}, {taken}
            FROM (SELECT line, record, {found.is_exact} AS {IS_EXACT}
                  FROM read_json({where}, format = 'newline_delimited', ignore_errors = true,
                                 maximum_object_size = {limit}, columns = {found.columns})
                  POSITIONAL JOIN
                       read_csv({where}, columns = {{line: 'VARCHAR'}}, auto_detect = false, header = false,
                                delim = '\x01', quote = '', escape = '', new_line = '\\n', max_line_size = {limit},
                                buffer_size = {4 * limit}))"""
        )
    except (duckdb.InvalidInputException, duckdb.ConversionException):
        return False  # no UTF-8, or a control character in a line: what is a record is decided line by line
    rows: int = database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    return rows == lines.rows


def _left_over(job: IngestJob, database: duckdb.DuckDBPyConnection, lines: _Lines, level: int) -> _Lines:
    """The lines that were of another shape, as a file of their own."""
    table, rest = f"shaped_{level}", f"rest_{level}"
    repeated = _with_repeated_keys(database, table)
    for number, line in enumerate(_lines(lines.path)) if repeated else ():
        if number in repeated:
            text = line.decode()
            database.execute(f"UPDATE {table} SET {IS_EXACT} = false, {RAW} = ? WHERE rowid = {number}", [text])
    source, number_of = _with_numbers(table, lines)
    waiting = f"SELECT {number_of} AS {NUMBER}, {table}.{RAW} FROM {source} WHERE NOT {IS_EXACT} ORDER BY {NUMBER}"
    database.execute(f"CREATE TEMP TABLE {rest} AS {waiting}")
    rows: int = database.execute(f"SELECT count(*) FROM {rest}").fetchall()[0][0]
    path = job.options.temp_directory / f"{job.target.name}.{rest}"
    if rows:
        cursor = database.execute(f"SELECT {RAW} FROM {rest} ORDER BY {NUMBER}")
        with path.open("wb") as file:
            while batch := cursor.fetchmany(1000):
                file.writelines(b"%s\n" % raw.encode() for (raw,) in batch)
    if lines.numbers is not None:
        lines.path.unlink()
    return _Lines(path, rows, rest)


def _with_numbers(table: str, lines: _Lines) -> tuple[str, str]:
    """What to read ``table`` from, and the place of its rows in the input."""
    if lines.numbers is None:
        return table, f"{table}.rowid"
    return f"{table} JOIN {lines.numbers} ON {table}.rowid = {lines.numbers}.rowid", f"{lines.numbers}.{NUMBER}"


def _with_repeated_keys(database: duckdb.DuckDBPyConnection, table: str) -> set[int]:
    """The rows whose JSON values change when they are read and written again: a key may stand there twice."""
    cursor = database.execute(f"SELECT rowid, {JSON_VALUES} FROM {table} WHERE {JSON_VALUES} IS NOT NULL")
    found: set[int] = set()
    while batch := cursor.fetchmany(10_000):
        found.update(row for row, text in batch if not _comes_back(text))
    return found


def _comes_back(text: str) -> bool:
    """Whether JSON text is the same when it was read and written; numbers beyond every type are not."""
    try:
        return _encode(_decode(text)) == text.encode()
    except msgspec.MsgspecError:
        return False


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their newlines."""
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def _numbered(database: duckdb.DuckDBPyConnection, lines: _Lines) -> Iterator[tuple[int, bytes]]:
    """Lines with their places in the input, in order."""
    if lines.numbers is None:
        yield from enumerate(_lines(lines.path))
    else:
        numbers = database.execute(f"SELECT {NUMBER} AS n FROM {lines.numbers} ORDER BY n").fetchnumpy()["n"]
        yield from zip(numbers.tolist(), _lines(lines.path), strict=True)
        lines.path.unlink()


def _sample(path: Path) -> list[bytes]:
    """Lines from a few places of a file."""
    size = path.stat().st_size
    lines: list[bytes] = []
    with path.open("rb") as file:
        for place in range(SAMPLE_PLACES):
            file.seek(size * place // SAMPLE_PLACES)
            if place:
                file.readline()  # the rest of a line
            lines.extend(line.removesuffix(b"\n") for _ in range(SAMPLE_LINES) if (line := file.readline()))
    return lines


def _make_exact(job: IngestJob, database: duckdb.DuckDBPyConnection, waiting: _Lines, long: Sequence[int]) -> int:
    """Make the table ``exact`` of these lines and the long ones, value by value; how many of them have changes."""
    own = [f"{_held(column.name)} {duck_type(column.type)}" for column in job.columns]
    types = ", ".join([*own, f"{EXTRACTED_AT} TIMESTAMPTZ", f"{EXTRA} VARCHAR", f"{CHANGES} {CHANGES_TYPE}"])
    database.execute(f"CREATE TEMP TABLE exact ({NUMBER} BIGINT, {types})")
    if not waiting.rows and not long:
        return 0
    from destination_s3_datalake.records import exact

    wanted = set(long)
    others = ((number, line) for number, line in enumerate(_lines(job.lines)) if number in wanted) if long else ()
    lines = heapq.merge(_numbered(database, waiting), others)  # in order: the first bad line is the one that is said
    for batch in exact.tables(lines, job.stream, job.columns, job.options.undeclared_fields):
        database.register("batch", batch)
        database.execute("INSERT INTO exact SELECT * FROM batch")
        database.unregister("batch")
    return int(database.execute(f"SELECT count({CHANGES}) FROM exact").fetchall()[0][0])


def _hashes(job: IngestJob, database: duckdb.DuckDBPyConnection) -> Hashes:
    """One per row, in order. Columns without a value leave no trace, so that a column added later changes no hash."""
    held = {**{column.name: _held(column.name) for column in job.columns}, EXTRA: EXTRA}
    parts = [f"hash({literal(name)}, {value})" for name, value in held.items()]
    parts += [f"hash({literal(name)}, NULL)" for name in held]  # what is NULL is undone; DuckDB folds the constants
    while len(parts) > 1:  # as a tree: DuckDB takes no expression that is a thousand calls deep
        parts = [f"xor({', '.join(parts[n : n + 2])})" if parts[n + 1 :] else parts[n] for n in range(0, len(parts), 2)]
    found = database.execute(f"SELECT {NUMBER} AS n, {parts[0]} AS h FROM rows").fetchnumpy()
    if not np.array_equal(found["n"], np.arange(job.rows)):
        raise InternalError("Rows were lost, added or moved between the spool and the file.", expected=job.rows)
    return np.ascontiguousarray(found["h"], dtype=np.uint64)


def _copy(
    job: IngestJob, database: duckdb.DuckDBPyConnection, kept: NDArray[np.bool_] | None
) -> tuple[files.WrittenFile, ...]:
    source = "rows"
    if kept is not None:
        import pyarrow as pa

        database.register("kept", pa.table({"our keep": pa.array(kept)}))
        source = '(SELECT * FROM rows POSITIONAL JOIN kept) WHERE "our keep"'
    names = ", ".join(f"{_held(column.name)} AS {quoted(column.name)}" for column in job.columns)
    columns = f"""
        {_raw_ids()} AS _airbyte_raw_id, {EXTRACTED_AT}, {int(job.generation_id)}::BIGINT AS _airbyte_generation_id,
        {{'sync_id': {int(job.sync_id)}::BIGINT, 'changes': coalesce({CHANGES}, []::{CHANGES_TYPE})}} AS {META},
        {EXTRA}{", " if names else ""}{names}"""
    return files.write(database, f"SELECT {columns} FROM {source}", job.target, job.options.files)


def _held(name: str) -> str:
    """A column's name in the tables here: a field may be called ``rowid``, which would hide DuckDB's own."""
    return quoted(f"our {name}_")


def _raw_ids() -> str:
    """UUIDs of version 7 for the rows of a file: a random one, counted up (RFC 9562, 6.2, a counter behind the time).

    They differ between files by 65 random bits; in a file they compress to almost nothing.
    """
    now, dice = time.time_ns() // 1_000_000, secrets.randbits(26)
    first = f"{now >> 16:08x}-{now & 0xFFFF:04x}-7{dice >> 14:03x}-{0x8000 | dice & 0x3FFF:04x}-"
    # Counted in decimal digits, which cost less than hexadecimal ones: twelve, also when it has been counted up.
    counter = 10**11 + secrets.randbelow(8 * 10**11)
    return f"concat({literal(first)}, {counter} + {NUMBER})"
