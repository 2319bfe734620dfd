"""Spooled record lines of one stream -> closed data files, each value exactly as ``values.py`` decides.

Rows are converted in batches of bounded size, kept in a DuckDB temporary table that spills to the spool's folder,
hashed and written there (``files.py``): DuckDB's own COPY is what stays within a memory limit. Rows keep their order
of arrival.

The hash of a row is the first 8 bytes of the MD5 of the JSON text of what is stored of its record, the originals in
``_airbyte_extra`` included, and neither times nor ids: the same record gives the same hash in every try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from destination_s3_datalake.errors import DataError, InternalError
from destination_s3_datalake.records import files, values
from destination_s3_datalake.records.database import open_database, quoted
from destination_s3_datalake.records.schema import (
    Array,
    BigInt,
    Boolean,
    Column,
    ColumnType,
    Date,
    Decimal,
    Double,
    Json,
    Struct,
    Text,
    Timestamp,
)

Hashes = NDArray[np.uint64]
BATCH_BYTES = 8 << 20
META_TYPE = pa.struct(
    [
        ("sync_id", pa.int64()),
        ("changes", pa.list_(pa.struct([("field", pa.string()), ("change", pa.string()), ("reason", pa.string())]))),
    ]
)
EXTRACTED_AT, META, EXTRA = "_airbyte_extracted_at", "_airbyte_meta", "_airbyte_extra"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How files are written."""

    files: files.FileOptions
    undeclared_fields: Literal["keep", "drop", "fail"]
    memory_limit_mb: int
    temp_directory: Path


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What to convert. ``lines`` holds ``rows`` RECORD lines of one stream, each with its newline.

    ``target`` is a folder that is made for the files.
    """

    lines: Path
    rows: int
    target: Path
    columns: tuple[Column, ...]
    generation_id: int
    sync_id: int
    options: WriteOptions


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was written. ``hashes`` and ``kept`` have one item per input row, in order; the files hold the kept ones."""

    files: tuple[files.WrittenFile, ...]
    hashes: Hashes
    kept: NDArray[np.bool_]
    changed_rows: int
    has_extra: bool


def keep_all(hashes: Hashes) -> NDArray[np.bool_]:
    """Every row is stored."""
    return np.ones(len(hashes), dtype=np.bool_)


def ingest(job: IngestJob, keep: Callable[[Hashes], NDArray[np.bool_]] = keep_all) -> Ingested:
    """Convert a file of lines. ``keep`` gets the hashes of all rows in order and says which are stored.

    No file is written if none is.

    Raises:
        DataError: a record cannot be taken; names its field at most.
        TransientError: the disk is full.
    """
    options = job.options
    try:
        with open_database(
            memory_limit_mb=options.memory_limit_mb // 2, temp_directory=options.temp_directory, what="Writing a file"
        ) as database:
            return _ingest(job, keep, database)
    except (pa.ArrowException, RecursionError) as error:
        raise InternalError("A record could not be converted.", kind=type(error).__name__) from None


def _ingest(
    job: IngestJob, keep: Callable[[Hashes], NDArray[np.bool_]], database: duckdb.DuckDBPyConnection
) -> Ingested:
    schema = _arrow_schema(job.columns)
    changed_rows = 0
    for number, batch in enumerate(_batches(job, schema)):
        changed_rows += batch.changed_rows
        database.register("batch", batch.table)
        database.execute(f"{'INSERT INTO rows' if number else 'CREATE TEMP TABLE rows AS'} SELECT * FROM batch")
        database.unregister("batch")
    hashes = _hashes(database, job.columns)
    if len(hashes) != job.rows:
        raise InternalError("Rows were lost or added between the spool and the file.", expected=job.rows)
    kept = keep(hashes)
    rows = int(kept.sum())
    # Everything is fetched: DuckDB refuses other work on a connection while a result has rows left.
    has_extra = bool(database.execute(f"SELECT count({EXTRA}) > 0 FROM rows").fetchall()[0][0])
    written = _copy(job, database, None if rows == job.rows else kept) if rows else ()
    return Ingested(written, hashes, kept, changed_rows, has_extra)


@dataclass(frozen=True, slots=True)
class _Batch:
    table: pa.Table
    changed_rows: int


def _batches(job: IngestJob, schema: pa.Schema) -> Iterator[_Batch]:
    with job.lines.open("rb") as file:
        while lines := file.readlines(BATCH_BYTES):
            rows = [_row(line, job) for line in lines]
            changed = sum(1 for row in rows if row[META]["changes"])
            yield _Batch(pa.Table.from_pylist(rows, schema=schema), changed)


def _row(line: bytes, job: IngestJob) -> dict[str, Any]:
    try:
        record = values.read_json(line.decode())["record"]
    except (ValueError, KeyError, TypeError):
        raise InternalError("A spooled line is no record.") from None
    row = values.row_of(record["data"], job.columns, job.options.undeclared_fields)
    ours = [{"field": change.field, "change": change.change, "reason": change.reason} for change in row.changes]
    changes = [*_source_changes(record.get("meta")), *ours]
    return {
        **row.values,
        EXTRACTED_AT: _microseconds(record["emitted_at"]),
        META: {"sync_id": job.sync_id, "changes": changes},
        EXTRA: values.json_text(row.extra) if row.extra else None,
    }


def _source_changes(meta: Any) -> list[dict[str, str | None]]:
    """The changes that the source (or the platform) recorded, reasons that we do not know included."""
    changes = meta.get("changes") if isinstance(meta, Mapping) else None
    if not isinstance(changes, Sequence) or isinstance(changes, str):
        return []
    return [
        {name: str(change[name]) if change.get(name) is not None else None for name in ("field", "change", "reason")}
        for change in changes
        if isinstance(change, Mapping)
    ]


def _microseconds(emitted_at: Any) -> int:
    """``emitted_at`` (milliseconds since 1970) in microseconds."""
    try:
        micros = int(float(emitted_at) * 1000)
    except (TypeError, ValueError, OverflowError):
        raise DataError("A record's emitted_at is no time in milliseconds.") from None
    if not -62_135_596_800_000_000 <= micros < 253_402_300_800_000_000:
        raise DataError("A record's emitted_at is beyond the years 1 to 9999; it must be in milliseconds.")
    return micros


def _hashes(database: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> Hashes:
    """One per row. Columns without a value leave no trace, so that a column added later changes no hash."""
    parts = [f"{quoted(name)}: {quoted(name)}" for name in sorted([c.name for c in columns] + [EXTRA])]
    text = f"json_merge_patch('{{}}', to_json({{{', '.join(parts)}}}))::VARCHAR"
    found = database.execute(f"SELECT md5_number_lower({text}) AS h FROM rows").fetchnumpy()["h"]
    return np.ascontiguousarray(found, dtype=np.uint64)


def _copy(
    job: IngestJob, database: duckdb.DuckDBPyConnection, kept: NDArray[np.bool_] | None
) -> tuple[files.WrittenFile, ...]:
    source = "rows"
    if kept is not None:
        database.register("kept", pa.table({"keep": pa.array(kept)}))
        source = "(SELECT * FROM rows POSITIONAL JOIN kept) WHERE keep"
    names = ", ".join(quoted(column.name) for column in job.columns)
    columns = f"""
        uuidv7()::VARCHAR AS _airbyte_raw_id, {EXTRACTED_AT},
        {int(job.generation_id)}::BIGINT AS _airbyte_generation_id, {META}, {EXTRA}{", " if names else ""}{names}"""
    return files.write(database, f"SELECT {columns} FROM {source}", job.target, job.options.files)


def _arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    own = [(column.name, arrow_type(column.type)) for column in columns]
    return pa.schema([*own, (EXTRACTED_AT, pa.timestamp("us", tz="UTC")), (META, META_TYPE), (EXTRA, pa.string())])


def arrow_type(kind: ColumnType) -> pa.DataType:
    """How a batch holds values of a column type."""
    match kind:
        case Boolean():
            return pa.bool_()
        case BigInt():
            return pa.int64()
        case Double():
            return pa.float64()
        case Decimal(precision, scale):
            return pa.decimal128(precision, scale)
        case Text() | Json():
            return pa.string()
        case Date():
            return pa.date32()
        case Timestamp(zoned):
            return pa.timestamp("us", tz="UTC" if zoned else None)
        case Struct(fields):
            return pa.struct([(field.name, arrow_type(field.type)) for field in fields])
        case Array(item):
            return pa.list_(arrow_type(item))
        case other:
            assert_never(other)
