"""Lines that no shape fits, value by value: RECORD lines -> Arrow tables, as ``values.py`` decides.

Apart from ``ingest.py``, since pyarrow takes longer to import than most syncs need for their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

import pyarrow as pa

from destination_s3_datalake.errors import BadLineError, InternalError, UnusableLineError
from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.protocol.messages import Record, parse_message
from destination_s3_datalake.records import values
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
from destination_s3_datalake.records.values import Undeclared, storable

BATCH_BYTES = 4 << 20
CHANGE = pa.struct([("field", pa.string()), ("change", pa.string()), ("reason", pa.string())])
NUMBER, EXTRACTED_AT, EXTRA, CHANGES = "our number", "_airbyte_extracted_at", "_airbyte_extra", "our changes"


def tables(
    lines: Iterable[tuple[int, bytes]], stream: StreamId, columns: Sequence[Column], undeclared: Undeclared
) -> Iterator[pa.Table]:
    """Numbered lines as tables of bounded size: the number, the columns, EXTRACTED_AT, EXTRA and CHANGES (or NULL).

    Raises:
        UnusableLineError: a line is no record of the stream.
        DataError: a record cannot be taken; names its field at most.
    """
    own: list[tuple[str, pa.DataType]] = [(column.name, arrow_type(column.type)) for column in columns]
    ours: list[tuple[str, pa.DataType]] = [
        (EXTRACTED_AT, pa.timestamp("us", tz="UTC")),
        (EXTRA, pa.string()),
        (CHANGES, pa.list_(CHANGE)),
    ]
    schema = pa.schema([(NUMBER, pa.int64()), *own, *ours])
    try:
        for batch in _batches(lines):
            rows = [{NUMBER: n, **_row(n, line, stream, columns, undeclared)} for n, line in batch]
            batch.clear()  # a line may be large, and each form that it has had takes as much memory
            table = pa.Table.from_pylist(rows, schema=schema)
            rows.clear()
            yield table
    except (pa.ArrowException, RecursionError) as error:
        raise InternalError("A record could not be converted.", kind=type(error).__name__) from None


def _batches(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        batch.append((number, line))
        size += len(line)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _row(
    number: int, line: bytes, stream: StreamId, columns: Sequence[Column], undeclared: Undeclared
) -> dict[str, Any]:
    try:
        message = parse_message(line, line=number)
    except BadLineError:
        raise UnusableLineError(number) from None
    if not isinstance(message, Record) or message.stream != stream:
        raise UnusableLineError(number)
    record = values.read_json(line.decode())["record"]
    row = values.row_of(record["data"], columns, undeclared)
    ours = [{"field": storable(change.field), "change": change.change, "reason": change.reason}
            for change in row.changes]  # fmt: skip
    return {
        **row.values,
        EXTRACTED_AT: _microseconds(record["emitted_at"]),
        EXTRA: values.json_text(row.extra) if row.extra else None,
        CHANGES: [*_source_changes(record.get("meta")), *ours] or None,
    }


def _source_changes(meta: Any) -> list[dict[str, str | None]]:
    """The changes that the source (or the platform) recorded, reasons that we do not know included."""
    changes = meta.get("changes") if isinstance(meta, Mapping) else None
    if not isinstance(changes, Sequence) or isinstance(changes, str):
        return []
    return [
        {
            name: storable(str(change[name])) if change.get(name) is not None else None
            for name in ("field", "change", "reason")
        }
        for change in changes
        if isinstance(change, Mapping)
    ]


def _microseconds(emitted_at: str) -> int:
    """``emitted_at`` (milliseconds since 1970) in microseconds; that it is in range was seen when it was parsed."""
    return int(float(emitted_at) * 1000)


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
        case Timestamp(unit="ms"):
            return pa.timestamp("ms")
        case Timestamp(zoned):
            return pa.timestamp("us", tz="UTC" if zoned else None)
        case Struct(fields):
            return pa.struct([(field.name, arrow_type(field.type)) for field in fields])
        case Array(item):
            return pa.list_(arrow_type(item))
        case other:
            assert_never(other)
