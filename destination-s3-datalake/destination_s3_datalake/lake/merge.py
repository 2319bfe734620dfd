"""The function of dedup: a table, staged rows and remembered deletes -> one row per key.

Of all rows with one key the winner has the latest cursor (NULL is before every value), then the latest
``_airbyte_extracted_at``, then arrived last. NULL in a key is a value like any other, and two values that did not fit
their column are told apart by their originals. A winner that is a CDC delete removes the row and leaves a tombstone of
key and cursor, so that an older change that comes later does not bring the row back.

Only rows whose key arrived compete, unless the table was not unique before (an append table): then all do. Files of the
table that lose no row are taken over as they are; the rest is written anew, ordered by key (where the output is more
than one file, each row group is; neighbours may overlap). DuckDB does it within its memory limit and spills to disk; it
reads narrow rows first (keys, cursor, place), so that a wide table costs one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson

from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.lake.rewrite import Workshop, parquet
from destination_s3_datalake.records.database import literal, open_database, quoted
from destination_s3_datalake.records.files import WrittenFile, copy_options, write
from destination_s3_datalake.records.ingest import EXTRA, EXTRACTED_AT
from destination_s3_datalake.records.schema import Column, Json, Struct
from destination_s3_datalake.records.values import escaped

DELETED_AT = "_ab_cdc_deleted_at"
SHARE_OF_MEMORY = 0.7  # DuckDB's; buffers outside it come on top
FieldPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a row in SQL: an expression over ``column``, and where its original is if it did not fit."""

    column: str
    expression: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Contest:
    """What makes two rows the same, which of them wins, and whether a winner may be a delete."""

    keys: tuple[Value, ...]
    cursor: Value | None
    deleted: Value | None
    fields: tuple[str, ...]
    """The key's field paths, for the log."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Local files: of the table, of staged rows in order of arrival, and the tombstones."""

    live: tuple[Path, ...]
    staged: tuple[Path, ...]
    tombstones: Path | None
    is_whole: bool
    """Whether all rows compete and not only those whose keys arrived."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What the merge made: which of the live files stay as they are, new files, and how many rows changed place."""

    kept: tuple[int, ...]
    written: tuple[WrittenFile, ...]
    removed: int
    added: int
    tombstones: Path | None


def contest_of(
    primary_key: Sequence[FieldPath],
    cursor: FieldPath | None,
    columns: Sequence[Column],
    *,
    hard_deletes: bool,
    stream: str,
) -> Contest:
    """The rules for a stream.

    Raises:
        ConfigError: it has no key, or key or cursor are not in its schema.
    """
    if not primary_key:
        raise ConfigError(
            f"Stream {stream} has no primary key, which append_dedup needs: choose one, or another sync mode.",
            stream=stream,
        )
    found = {column.field: column for column in columns}
    deleted = (DELETED_AT,)
    return Contest(
        keys=tuple(_value(path, found, "primary key", stream) for path in primary_key),
        cursor=_value(cursor, found, "cursor field", stream) if cursor else None,
        deleted=_value(deleted, found, "delete marker", stream) if hard_deletes and DELETED_AT in found else None,
        fields=tuple(orjson.dumps(path).decode() for path in primary_key),
    )


def merge(inputs: Inputs, contest: Contest, workshop: Workshop) -> Merged:
    """Do it.

    Raises:
        TransientError: disk or memory do not suffice.
    """
    with open_database(
        memory_limit_mb=int(workshop.memory_limit_mb * SHARE_OF_MEMORY),
        temp_directory=workshop.folder,
        what="Merging by key",
    ) as database:
        return _Merge(database, inputs, contest, workshop).run()


class _Merge:
    """One merge. Tables: ``staged``, ``old`` and ``buried`` hold narrow rows, ``places`` all that compete."""

    def __init__(self, database: duckdb.DuckDBPyConnection, inputs: Inputs, contest: Contest, workshop: Workshop):
        self._database = database
        self._inputs = inputs
        self._contest = contest
        self._workshop = workshop
        self._names = [f"k{number}" for number in range(2 * len(contest.keys))]
        self._keys = ", ".join(self._names)
        self._same = " AND ".join(f"o.{name} IS NOT DISTINCT FROM s.{name}" for name in self._names)
        fields = contest.fields
        self._stored = dict(
            zip(self._names, [*(f"key {f}" for f in fields), *(f"text {f}" for f in fields)], strict=True)
        )
        self._stored |= {"c": f"cursor {contest.cursor.pointer if contest.cursor else ''}", "e": EXTRACTED_AT}
        self._types: dict[str, str] = {}

    def run(self) -> Merged:
        self._read_candidates()
        self._decide()
        gone = self._counts("gone")
        touched = [file for file in range(len(self._inputs.live)) if file in gone]
        added = sum(self._counts("added").values())
        return Merged(
            kept=tuple(file for file in range(len(self._inputs.live)) if file not in gone),
            written=self._write(touched, has_new=bool(added)),
            removed=sum(gone.values()),
            added=added,
            tombstones=self._write_tombstones(),
        )

    def _read_candidates(self) -> None:
        inputs = self._inputs
        order = "c DESC NULLS LAST, e DESC NULLS LAST, f DESC, r DESC"
        self._database.execute(
            f"CREATE TEMP TABLE staged AS SELECT * FROM ({self._narrow(inputs.staged, kind=2)}) "
            f"QUALIFY row_number() OVER (PARTITION BY {self._keys} ORDER BY {order}) = 1"
        )
        self._types = dict(self._database.execute("SELECT column_name, column_type FROM (DESCRIBE staged)").fetchall())
        for name, rows in (("old", self._narrow(inputs.live, kind=1)), ("buried", self._narrow_tombstones())):
            only = "" if inputs.is_whole else f"SEMI JOIN staged s ON {self._same}"
            self._database.execute(f"CREATE TEMP TABLE {name} AS SELECT o.* FROM ({rows}) o {only}")

    def _decide(self) -> None:
        order = "c DESC NULLS LAST, e DESC NULLS LAST, kind DESC, f DESC, r DESC"
        self._database.execute(
            "CREATE TEMP TABLE places AS "
            f"SELECT *, row_number() OVER (PARTITION BY {self._keys} ORDER BY {order}) = 1 AS wins FROM "
            "(FROM staged UNION ALL BY NAME FROM old UNION ALL BY NAME FROM buried)"
        )
        self._database.execute("CREATE TEMP TABLE gone AS SELECT f, r FROM places WHERE kind = 1 AND (NOT wins OR d)")
        self._database.execute("CREATE TEMP TABLE added AS SELECT f, r FROM places WHERE kind = 2 AND wins AND NOT d")

    def _write(self, touched: Sequence[int], *, has_new: bool) -> tuple[WrittenFile, ...]:
        parts = []
        if touched:
            self._database.execute("CREATE TEMP TABLE numbers (f BIGINT, n BIGINT)")
            self._database.executemany("INSERT INTO numbers VALUES (?, ?)", [[f, n] for n, f in enumerate(touched)])
            files = [self._inputs.live[file] for file in touched]
            parts.append(
                f"SELECT t.* EXCLUDE (file_row_number) FROM (SELECT *, file_index AS file FROM {_numbered(files)}) t "
                "ANTI JOIN (SELECT n, r FROM gone JOIN numbers USING (f)) g ON t.file = g.n AND t.file_row_number = g.r"
            )
        if has_new:
            parts.append(
                "SELECT t.* EXCLUDE (file_row_number) FROM "
                f"(SELECT *, file_index AS file FROM {_numbered(self._inputs.staged)}) t "
                "SEMI JOIN added g ON t.file = g.f AND t.file_row_number = g.r"
            )
        if not parts:
            return ()
        rows = " UNION ALL BY NAME ".join(f"({part})" for part in parts)
        present = self._columns(rows)
        order = ", ".join(value.expression for value in self._contest.keys if value.column in present)
        query = f"SELECT * EXCLUDE (file) FROM ({rows}) {f'ORDER BY {order}' if order else ''}"
        return write(self._database, query, self._workshop.folder / "merged", self._workshop.files)

    def _write_tombstones(self) -> Path | None:
        """Winners that are deletes, and those of before whose keys did not come."""
        names = ", ".join(f"{name} AS {quoted(stored)}" for name, stored in self._stored.items())
        rows = f"SELECT {names} FROM places WHERE wins AND d AND kind <> 1"
        if self._inputs.tombstones is not None and not self._inputs.is_whole:
            every = self._narrow_tombstones()
            rows += f" UNION ALL BY NAME SELECT {names} FROM ({every}) o ANTI JOIN staged s ON {self._same}"
        if not self._database.execute(f"SELECT count(*) FROM ({rows})").fetchall()[0][0]:
            return None
        target = self._workshop.folder / "tombstones.parquet"
        self._database.execute(f"COPY ({rows}) TO {literal(target)} ({copy_options(self._workshop.files)})")
        return target

    def _narrow(self, files: Sequence[Path], *, kind: int) -> str:
        """Key, cursor, time, whether it is a delete, and place of each row of these files."""
        if not files:
            return self._nothing(kind)
        source = _numbered(files)
        present = self._columns(f"FROM {source}")
        contest = self._contest
        keys = [_read(value, present) for value in contest.keys]
        originals = [_original(value, present) for value in contest.keys]
        cursor = _read(contest.cursor, present) if contest.cursor else "NULL"
        deleted = f"{_read(contest.deleted, present)} IS NOT NULL" if contest.deleted else "false"
        extracted = EXTRACTED_AT if EXTRACTED_AT in present else "NULL"
        parts = [self._as(name, part) for name, part in zip(self._names, [*keys, *originals], strict=True)]
        return (
            f"SELECT {', '.join(parts)}, {self._as('c', cursor)}, {self._as('e', extracted)}, {deleted} AS d, "
            f"{kind} AS kind, file_index::BIGINT AS f, file_row_number AS r FROM {source}"
        )

    def _narrow_tombstones(self) -> str:
        path = self._inputs.tombstones
        if path is None:
            return self._nothing(0)
        present = self._columns(f"FROM {parquet([path])}")
        if not {self._stored[name] for name in self._names} <= present:
            return self._nothing(0)  # of another key: they say nothing of this one
        parts = ", ".join(
            self._as(name, quoted(stored) if stored in present else "NULL") for name, stored in self._stored.items()
        )
        return f"SELECT {parts}, true AS d, 0 AS kind, 0::BIGINT AS f, 0::BIGINT AS r FROM {parquet([path])}"

    def _nothing(self, kind: int) -> str:
        parts = ", ".join(self._as(name, "NULL") for name in (*self._names, "c", "e"))
        return f"SELECT {parts}, false AS d, {kind} AS kind, 0::BIGINT AS f, 0::BIGINT AS r WHERE false"

    def _as(self, name: str, expression: str) -> str:
        """The narrow column ``name``, of the type that it has in the staged rows."""
        kind = self._types.get(name)
        return f"{expression} AS {name}" if kind is None else f"CAST({expression} AS {kind}) AS {name}"

    def _columns(self, query: str) -> frozenset[str]:
        return frozenset(row[0] for row in self._database.execute(f"DESCRIBE {query}").fetchall())

    def _counts(self, table: str) -> dict[int, int]:
        found = self._database.execute(f"SELECT f, count(*) FROM {table} GROUP BY f").fetchall()
        return {int(file): int(rows) for file, rows in found}


def _value(path: FieldPath, columns: Mapping[str, Column], what: str, stream: str) -> Value:
    unknown = ConfigError(
        f"Stream {stream}: the {what} {'.'.join(path)} is not in the stream's schema: choose a field that is, or "
        "add it to the source's schema.",
        stream=stream,
    )
    column = columns.get(path[0])
    if column is None:
        raise unknown
    expression, kind = quoted(column.name), column.type
    for depth, part in enumerate(path[1:], start=1):
        match kind:
            case Struct(fields) if any(field.field == part for field in fields):
                field = next(field for field in fields if field.field == part)
                expression, kind = f"{expression}.{quoted(field.name)}", field.type
            case Json():
                expression = f"json_extract_string({expression}, {literal(_pointer(path[depth:]))})"
                break
            case _:
                raise unknown
    return Value(column.name, expression, _pointer([".".join(map(escaped, path))]))


def _pointer(path: Sequence[str]) -> str:
    """RFC 6901."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _read(value: Value, present: frozenset[str]) -> str:
    return value.expression if value.column in present else "NULL"


def _original(value: Value, present: frozenset[str]) -> str:
    """The text that did not fit the column; NULL for values that did."""
    return f"json_extract_string({EXTRA}, {literal(value.pointer)})" if EXTRA in present else "NULL"


def _numbered(files: Sequence[Path]) -> str:
    return f"{parquet(files)[:-1]}, file_row_number = true)"
