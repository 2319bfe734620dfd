"""Publishing by rewrite: a table and its pending rows -> a new folder -> one swap.

The one path for a merge by key (``merge.py``), for the join of a refresh that was cancelled, and for the compaction of
small files. The new folder is of this writer alone and read by nobody until the swap, so its files are plain objects;
files that need no change are copied server side. A crash before the swap entry leaves a folder that the next opener
deletes, a crash behind it is finished by the next opener.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.lake import glue, log
from destination_s3_datalake.lake.layout import suffix_of
from destination_s3_datalake.lake.s3 import ListedObject
from destination_s3_datalake.lake.table import Table
from destination_s3_datalake.records import text_files
from destination_s3_datalake.records.database import literal, open_database
from destination_s3_datalake.records.files import FileOptions, WrittenFile, write
from destination_s3_datalake.records.partitions import values_of
from destination_s3_datalake.records.schema import GlueColumn

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

    ``rows`` is None if nobody counted them; ``tombstones`` is a new local file, or the object that stays valid.
    """

    taken_over: tuple[ListedObject, ...]
    written: tuple[WrittenFile, ...]
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
        stored = pool.map(lambda file: table.store(file.path, folder, file.values), made.written)
        files = [*copies, *stored]
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


def join(table: Table, pending: Sequence[log.Commit], workshop: Workshop) -> None:
    """Bring the rows of a refresh that was cancelled, or that wait for a merge which will not come, into the table.

    Files are copied server side where they can be.

    Raises:
        ConfigError: they have columns of other types than the table.
    """
    state = table.state
    live = table.live_objects()
    rows = None if state.rows is None else state.rows + sum(commit.rows for commit in pending)
    columns = columns_with(table, pending)
    came, written = placed(table, pending, columns, workshop)
    publish(
        table,
        Rewritten((*live, *came), written, rows, tombstones=state.tombstones),
        includes=pending,
        columns=columns,
        names=log.names_of(pending, state.names),
        file_format=state.file_format or "parquet",
        generation=None,
        replaces=False,
    )


def placed(
    table: Table, commits: Sequence[log.Commit], columns: Sequence[GlueColumn], workshop: Workshop
) -> tuple[tuple[ListedObject, ...], tuple[WrittenFile, ...]]:
    """The files of commits for a folder of the table: as they are, and written anew.

    Written anew are staged rows of a partitioned table, and files whose columns are known by their place and stand in
    other places than ``columns``.
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
        return tuple(objects_of(commits)), ()
    paths = fetch(table, objects_of(staged), workshop.new_folder("came"))
    written = _written(f"FROM {parquet(paths)}", workshop.folder / "placed", workshop, what="Joining staged rows")
    return tuple(objects_of([commit for commit in commits if not commit.is_staged])), written


def _in_its_partition(table: Table, found: ListedObject, path: Path) -> WrittenFile:
    place = table.partition_path(found.key)
    return WrittenFile(path, 0, values_of(place) if place else ())


def _written(query: str, folder: Path, workshop: Workshop, *, what: str) -> tuple[WrittenFile, ...]:
    with open_database(
        memory_limit_mb=workshop.memory_limit_mb // 2, temp_directory=workshop.folder, what=what
    ) as database:
        return write(database, query, folder, workshop.files)


def columns_with(table: Table, pending: Sequence[log.Commit]) -> tuple[GlueColumn, ...]:
    """The columns of the table and of pending commits together.

    Raises:
        ConfigError: one of them has two types.
    """
    types = {column.Name: column.Type for column in table.state.columns}
    for column in (column for commit in pending for column in commit.columns or ()):
        if types.setdefault(column.Name, column.Type) != column.Type:
            raise ConfigError(
                f"The table {table.name} has a refresh that was not finished and whose column {column.Name} is "
                f"{column.Type}, while the table's is {types[column.Name]}. Nothing was changed. Run the refresh of "
                "the stream to its end, or give the field its former type.",
                table=str(table.name),
                column=column.Name,
            )
    return log.columns_of(pending, table.state.columns)


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
