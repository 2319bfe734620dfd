"""Publishing by rewrite: a table and its pending rows -> a new folder -> one swap.

The one path for a merge by key (``merge.py``), for the join of a refresh that was cancelled, for columns of a new type,
and for the compaction of small files. The new folder is of this writer alone and read by nobody until the swap, so its
files are plain objects; files that need no change are copied server side. A crash before the swap entry leaves a folder
that the next opener deletes, a crash behind it is finished by the next opener.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.lake import glue, log
from destination_s3_datalake.lake.layout import suffix_of
from destination_s3_datalake.lake.s3 import ListedObject
from destination_s3_datalake.lake.table import Table
from destination_s3_datalake.records import retype, text_files
from destination_s3_datalake.records.database import literal, open_database, quoted
from destination_s3_datalake.records.evolution import changes
from destination_s3_datalake.records.files import FileOptions, WrittenFile, write
from destination_s3_datalake.records.partitions import values_of
from destination_s3_datalake.records.schema import ColumnType, GlueColumn, StoredType

if TYPE_CHECKING:
    import duckdb

COPIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and within which limits files are rewritten. ``folder`` is emptied by its owner."""

    folder: Path
    memory_limit_mb: int
    files: FileOptions
    """How the files of the table are written: by partition, and as large as they should be."""
    target_file_mb: int

    def new_folder(self, name: str) -> Path:
        """An empty folder of this name."""
        path = self.folder / name
        path.mkdir()
        return path


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a folder gets: objects as they are, local files, and what is known of the whole.

    ``written`` may be made one by one: each file is deleted when it is stored. ``rows`` is None if nobody counted them;
    ``tombstones`` is a new local file, or the object that stays valid.
    """

    taken_over: tuple[ListedObject, ...]
    written: Iterable[WrittenFile]
    rows: int | None
    unique_by: tuple[str, ...] | None = None
    tombstones: Path | str | None = None


def publish(
    table: Table,
    made: Rewritten,
    *,
    includes: Sequence[log.Commit],
    columns: tuple[GlueColumn, ...],
    names: dict[str, str],
    file_format: FormatType,
    generation: int | None,
    replaces: bool,
) -> int:
    """Put it into a new folder and make that the table; its size in bytes."""
    folder, tombstones = table.new_folder(), made.tombstones
    with ThreadPoolExecutor(max_workers=COPIES_AT_ONCE) as pool:
        copies = pool.map(lambda found: table.take_over(found.key, folder, size=found.size), made.taken_over)
        files = [*copies]
        waiting = iter(made.written)
        while batch := list(itertools.islice(waiting, COPIES_AT_ONCE)):
            files += pool.map(lambda file: table.store(file.path, folder, file.values), batch)
            for file in batch:
                file.path.unlink()
    table.swap(
        folder=folder,
        columns=columns,
        names=names,
        file_format=file_format,
        generation=generation,
        replaces=replaces,
        includes=includes,
        files=files,
        rows=made.rows,
        unique_by=made.unique_by,
        tombstones=table.store_tombstones(tombstones) if isinstance(tombstones, Path) else tombstones,
    )
    return sum(file.bytes for file in files)


def fetch(table: Table, objects: Sequence[ListedObject], folder: Path) -> list[Path]:
    """The objects as local files, in their order."""
    paths = [folder / f"{number:08d}{suffix_of(found.key)}" for number, found in enumerate(objects)]
    for found, path in zip(objects, paths, strict=True):
        table.download(found.key, path)
    return paths


def objects_of(commits: Sequence[log.Commit]) -> list[ListedObject]:
    """The data files of commits, in order of arrival."""
    return [ListedObject(file.key, file.bytes) for commit in commits for file in commit.files]


@dataclass(frozen=True, slots=True)
class Source:
    """Data files whose rows have these columns."""

    objects: tuple[ListedObject, ...]
    columns: tuple[GlueColumn, ...]


def sources_of(table: Table, commits: Sequence[log.Commit]) -> list[Source]:
    """The data files of commits, in order of arrival."""
    return [Source(tuple(objects_of([commit])), log.columns_in(table.state, commit)) for commit in commits]


def join(
    table: Table,
    pending: Sequence[log.Commit],
    workshop: Workshop,
    *,
    columns: tuple[GlueColumn, ...],
    names: dict[str, str],
) -> None:
    """Bring the table to these columns, and rows into it that wait for a refresh or merge which will not come.

    Files are copied server side where they can be.
    """
    state = table.state
    live = Source(tuple(table.live_objects()), state.columns)
    rows = None if state.rows is None else state.rows + sum(commit.rows for commit in pending)
    came, placed_files = placed(table, pending, columns, workshop)
    kept, retyped = as_typed(table, [live], columns, workshop)
    publish(
        table,
        Rewritten(
            (*kept, *came),
            itertools.chain(placed_files, retyped),
            rows,
            unique_by=None if pending else state.unique_by,
            tombstones=state.tombstones,
        ),
        includes=pending,
        columns=columns,
        names=names,
        file_format=state.file_format or "parquet",
        generation=None,
        replaces=False,
    )


def placed(
    table: Table, commits: Sequence[log.Commit], columns: Sequence[GlueColumn], workshop: Workshop
) -> tuple[tuple[ListedObject, ...], Iterable[WrittenFile]]:
    """The files of commits for a folder of the table: as they are, and written anew.

    Written anew are files with columns of other types, staged rows of a partitioned table, and files whose columns are
    known by their place and stand in other places than ``columns``.
    """
    before, after = ([column.Name for column in found] for found in (log.columns_of(commits), columns))
    if table.state.file_format in glue.BY_PLACE and after[: len(before)] != before:
        came = objects_of(commits)
        paths = fetch(table, came, workshop.new_folder("came"))
        places = [before.index(name) if name in before else None for name in after]
        moved = [text_files.with_places(path, workshop.folder / path.name, places) for path in paths]
        return (), tuple(_in_its_partition(table, *each) for each in zip(came, moved, strict=True))
    staged = [commit for commit in commits if commit.is_staged and commit.rows]
    if not table.state.partitioning or not staged:
        return as_typed(table, sources_of(table, commits), columns, workshop)
    paths = fetch_as(table, sources_of(table, staged), columns, workshop.new_folder("came"), workshop)
    written = _written(f"FROM {parquet(paths)}", workshop.folder / "placed", workshop, what="Joining staged rows")
    rest = [commit for commit in commits if not commit.is_staged]
    kept, retyped = as_typed(table, sources_of(table, rest), columns, workshop)
    return kept, itertools.chain(written, retyped)


def as_typed(
    table: Table, sources: Sequence[Source], columns: Sequence[GlueColumn], workshop: Workshop
) -> tuple[tuple[ListedObject, ...], Iterator[WrittenFile]]:
    """The files of ``sources`` for a table of these columns: those that fit as they are, the others one by one anew."""
    fitting = [found for source in sources if not changes(source.columns, columns) for found in source.objects]
    return tuple(fitting), _retyped(table, sources, columns, workshop)


def _retyped(
    table: Table, sources: Sequence[Source], columns: Sequence[GlueColumn], workshop: Workshop
) -> Iterator[WrittenFile]:
    options, number = replace(workshop.files, partitioning=()), itertools.count()
    for source in sources:
        odd = changes(source.columns, columns)
        for found in source.objects if odd else ():
            path = workshop.folder / "retyping.parquet"
            table.download(found.key, path)
            folder = workshop.folder / f"retyped-{next(number)}"
            for written in _converted(path, odd, folder, options, workshop):
                yield replace(_in_its_partition(table, found, written.path), rows=written.rows)


def fetch_as(
    table: Table, sources: Sequence[Source], columns: Sequence[GlueColumn], folder: Path, workshop: Workshop
) -> list[Path]:
    """The files of ``sources`` as local files of these columns, in their order."""
    options = replace(workshop.files, partitioning=(), target_file_mb=None)
    paths: list[Path] = []
    for number, source in enumerate(sources):
        place = folder / str(number)
        place.mkdir()
        fetched = fetch(table, source.objects, place)
        if odd := changes(source.columns, columns):
            parts = [_converted(path, odd, place / f"as-{path.stem}", options, workshop) for path in fetched]
            fetched = [file.path for part in parts for file in part]
        paths += fetched
    return paths


def is_exact(
    table: Table, source: Source, name: str, old: StoredType, new: ColumnType, *, folder: Path, memory_limit_mb: int
) -> bool:
    """Whether every stored value of a column is the same in another type. Files are looked at one by one."""
    path = folder / "looking.parquet"
    for found in source.objects:
        table.download(found.key, path)
        with open_database(
            memory_limit_mb=memory_limit_mb // 2, temp_directory=folder, what="Reading a column whose type changed"
        ) as database:
            if name in _columns(database, path):
                check = retype.is_exact(quoted(name), old, new)
                [[is_so]] = database.execute(
                    f"SELECT coalesce(bool_and(coalesce({check}, true)), true) FROM {parquet([path])}"
                ).fetchall()
                if not is_so:
                    return False
    return True


def _converted(
    path: Path, odd: dict[str, tuple[StoredType, ColumnType]], folder: Path, options: FileOptions, workshop: Workshop
) -> tuple[WrittenFile, ...]:
    """The file with these columns in their new types; it is deleted."""
    with open_database(
        memory_limit_mb=workshop.memory_limit_mb // 2, temp_directory=workshop.folder, what="Giving columns a new type"
    ) as database:
        present = _columns(database, path)
        parts = [
            f"{retype.converted(quoted(name), *kinds)} AS {quoted(name)}"
            for name, kinds in odd.items()
            if name in present
        ]
        instead = f" REPLACE ({', '.join(parts)})" if parts else ""
        written = write(database, f"SELECT *{instead} FROM {parquet([path])}", folder, options)
    path.unlink()
    return written


def _columns(database: duckdb.DuckDBPyConnection, path: Path) -> frozenset[str]:
    return frozenset(row[0] for row in database.execute(f"DESCRIBE FROM {parquet([path])}").fetchall())


def _in_its_partition(table: Table, found: ListedObject, path: Path) -> WrittenFile:
    place = table.partition_path(found.key)
    return WrittenFile(path, 0, values_of(place) if place else ())


def _written(query: str, folder: Path, workshop: Workshop, *, what: str) -> tuple[WrittenFile, ...]:
    with open_database(
        memory_limit_mb=workshop.memory_limit_mb // 2, temp_directory=workshop.folder, what=what
    ) as database:
        return write(database, query, folder, workshop.files)


def compact(table: Table, small: Sequence[ListedObject], rest: Sequence[ListedObject], workshop: Workshop) -> None:
    """Write the many small files of the table as few full ones; the rest is taken over."""
    state = table.state
    paths = fetch(table, small, workshop.new_folder("small"))
    if state.file_format == "parquet":
        query, folder = f"FROM {parquet(paths)}", workshop.folder / "compacted"
        written = _written(query, folder, workshop, what="Joining small files")
    else:
        written = _joined_text(table, small, paths, workshop)
    publish(
        table,
        Rewritten(tuple(rest), written, state.rows, state.unique_by, state.tombstones),
        includes=(),
        columns=state.columns,
        names=state.names,
        file_format=state.file_format or "parquet",
        generation=None,
        replaces=False,
    )


def _joined_text(
    table: Table, small: Sequence[ListedObject], paths: Sequence[Path], workshop: Workshop
) -> tuple[WrittenFile, ...]:
    parts: dict[str, list[Path]] = {}
    for found, path in zip(small, paths, strict=True):
        parts.setdefault(table.partition_path(found.key), []).append(path)
    written: list[WrittenFile] = []
    for number, (place, files) in enumerate(parts.items()):
        folder = workshop.new_folder(f"joined-{number}")
        text_files.join(files, folder, suffix=workshop.files.suffix, target_bytes=workshop.target_file_mb << 20)
        values = values_of(place) if place else ()
        written += [WrittenFile(path, 0, values) for path in sorted(folder.iterdir())]
    return tuple(written)


def parquet(paths: Sequence[Path]) -> str:
    """The files as one table in SQL: columns by name, rows in the order of the files."""
    return f"read_parquet([{', '.join(map(literal, paths))}], union_by_name = true)"
