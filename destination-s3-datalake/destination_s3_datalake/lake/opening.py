"""Opening a table: whose it is, whether another writer lives, and what a dead one left undone.

After ``open_table`` every older writer is fenced, every committed row is visible, Glue shows the committed folder, and
nothing of older writers is in progress. Every step may be repeated by the next opener.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.errors import ConfigError, TransientError
from destination_s3_datalake.lake import glue, log
from destination_s3_datalake.lake.garbage import Retention
from destination_s3_datalake.lake.glue import Catalog, GlueTable
from destination_s3_datalake.lake.heartbeat import Heartbeat
from destination_s3_datalake.lake.layout import Layout, epoch_of_file
from destination_s3_datalake.lake.log import TableState
from destination_s3_datalake.lake.s3 import Bucket
from destination_s3_datalake.lake.table import UPLOADS_AT_ONCE, Table, TableName, is_completed, stream_parameter
from destination_s3_datalake.lake.table_log import REPAIR, TableLog, TakenError
from destination_s3_datalake.records.names import READER_COLUMNS
from destination_s3_datalake.records.partitions import PartitionKey
from destination_s3_datalake.records.schema import GlueColumn

POLL_SECONDS = 2.0
Notify = Callable[[Literal["INFO", "WARN"], str], None]


@dataclass(frozen=True, slots=True)
class Lake:
    """The bucket, the catalog and this process's heartbeat, shared by all tables."""

    bucket: Bucket
    catalog: Catalog
    heartbeat: Heartbeat
    prefix: str
    takeover_after_seconds: int
    retention: Retention
    adopts: bool
    notify: Notify


@dataclass(frozen=True, slots=True)
class Opening:
    """What this run says of itself in its ``open`` entry."""

    stream: tuple[str | None, str]
    sync_id: int | None
    generation: int | None
    min_generation: int | None
    full_refresh: bool
    resume_state_hash: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A table as it was found: not opened yet, and not touched."""

    name: TableName
    layout: Layout
    log: TableLog
    glue: GlueTable | None
    is_adopted: bool = False
    """It is somebody else's, and ours from the next ``open`` on."""


def find_table(
    lake: Lake, *, stream: tuple[str | None, str], database: str, names: tuple[str, str], folder: Callable[[str], str]
) -> Found:
    """The table of a stream: under its own name, or under that with a suffix where the name is another stream's.

    Args:
        names: the plain table name, and the one to take if the first belongs to another stream of ours.
        folder: table or database name -> name of its folder.

    Raises:
        ConfigError: a table of that name is somebody else's, or its log is not whole.
    """
    for table_name, layout in candidates(lake, stream=stream, database=database, names=names, folder=folder):
        table_log = TableLog(lake.bucket, layout.log, str(table_name))
        state, table = table_log.read(), lake.catalog.table(database, table_name.table)
        if _is_another_streams(stream, state, table):
            continue
        if table is not None and _is_to_adopt(lake, state, table):
            _require_adoptable(table_name, layout, table)
            return Found(table_name, layout, table_log, table, is_adopted=True)
        _require_whole(table_name, state, table)
        return Found(table_name, layout, table_log, table)
    raise ConfigError(f"Both {names[0]} and {names[1]} in {database} belong to other streams; rename the stream.")


def candidates(
    lake: Lake, *, stream: tuple[str | None, str], database: str, names: tuple[str, str], folder: Callable[[str], str]
) -> list[tuple[TableName, Layout]]:
    """The tables that may be a stream's, as ``find_table`` tries them."""
    return [
        (TableName(database, name, stream), Layout(lake.bucket.name, lake.prefix, folder(database), folder(name)))
        for name in names
    ]


def open_table(lake: Lake, found: Found, opening: Opening, *, mode: str) -> Table:
    """Append ``open`` and finish what a dead writer left.

    Raises:
        TransientError: another sync writes this table, or a later started one has opened it.
    """
    epoch = _append_open(lake, found, opening, mode)
    table = Table(lake.bucket, lake.catalog, found.layout, found.name, found.log, epoch=epoch)
    if found.is_adopted and table.state.swap is None:
        adopted = table.adopt()
        lake.notify("WARN", f"{table.name}: adopted, with {adopted} files that stay where they are.")
    _finish_commits(lake, table)
    _finish_swap(lake, table)
    _abort_uploads(lake, found.layout, table)
    said = table.collect_garbage(lake.retention)
    if said is not None:
        lake.notify("WARN", f"{table.name}: {said}")
    table.has_applied(table.state.next_seq - 1)
    return table


def _is_another_streams(stream: tuple[str | None, str], state: TableState | None, table: GlueTable | None) -> bool:
    if state is not None and state.stream is not None:
        return state.stream != stream
    owner = table.parameters.get(glue.STREAM) if table is not None else None
    return owner is not None and owner != stream_parameter(stream)


def reaches(state: TableState, table: GlueTable) -> bool:
    """Whether this is the log that the table in Glue names, up to the entry that published it at least."""
    return table.parameters.get(glue.LOG_ID) == state.log_id and state.next_seq > table.seq


def _is_to_adopt(lake: Lake, state: TableState | None, table: GlueTable) -> bool:
    return lake.adopts and glue.LOG_ID not in table.parameters and (state is None or state.swap is None)


def _require_adoptable(name: TableName, layout: Layout, table: GlueTable) -> None:
    root = f"s3://{layout.bucket}/"
    reasons = {
        "it is partitioned": bool(table.definition.get("PartitionKeys")),
        "its files are neither Parquet nor JSON Lines": glue.adoptable_format(table) is None,
        f"its Location is not a folder of the bucket {layout.bucket}": not table.location.startswith(root)
        or not table.location.removeprefix(root).strip("/"),
        "new folders would lie below its Location (choose another s3_bucket_path)": f"{root}{layout.data}".startswith(
            f"{table.location.rstrip('/')}/"
        ),
        "it has a column that only this destination may use": bool(
            {column.Name for column in table.columns} & {*READER_COLUMNS}
        ),
    }
    for reason, is_true in reasons.items():
        if is_true:
            raise ConfigError(
                f"The table {name} cannot be adopted: {reason}. It is not touched. Choose another glue_database, or "
                "rename that table.",
                table=str(name),
            )


def _require_whole(name: TableName, state: TableState | None, table: GlueTable | None) -> None:
    if table is None:
        return
    owner = table.parameters.get(glue.LOG_ID)
    if owner is None and state is not None and isinstance(state.swap, log.Adopt) and not state.is_published:
        return  # it was being adopted when its writer died
    if owner is None:
        raise ConfigError(
            f"The table {name} exists and was not made by this destination; it is not touched. Choose another "
            "glue_database (or namespace), rename or drop that table, or set existing_table to adopt.",
            table=str(name),
        )
    if state is None:
        raise ConfigError(
            f"The log of {name} is gone (folder _airbyte/ deleted, expired, or another bucket or path configured). "
            f"Nothing was changed. Correct s3_bucket_name and s3_bucket_path, or {REPAIR}.",
            table=str(name),
        )
    if not reaches(state, table):
        raise ConfigError(
            f"The log of {name} is older than the table in Glue, or another one: entries are missing. "
            f"Nothing was changed. Restore _airbyte/, or {REPAIR}.",
            table=str(name),
        )


def _append_open(lake: Lake, found: Found, opening: Opening, mode: str) -> int:
    log_id = uuid.uuid4().hex
    while True:
        found.log.read()
        _wait_for_writer(lake, found)
        _require_latest_start(lake, found)
        state = found.log.state
        build = _open_entry(opening, lake.heartbeat, mode=mode, log_id=state.log_id if state else log_id)
        try:
            return found.log.append(build).epoch
        except TakenError:
            continue


def _open_entry(
    opening: Opening, heartbeat: Heartbeat, *, mode: str, log_id: str
) -> Callable[[int, str, str], log.Open]:
    writer, started = heartbeat.writer, heartbeat.started

    def build(seq: int, uid: str, now: str) -> log.Open:
        return log.Open(
            seq=seq,
            epoch=seq,
            uid=uid,
            log_id=log_id,
            time=now,
            stream=opening.stream,
            writer=writer,
            started=started,
            sync_id=opening.sync_id,
            generation=opening.generation,
            min_generation=opening.min_generation,
            mode=mode,
            full_refresh=opening.full_refresh,
            resume_state_hash=opening.resume_state_hash,
        )

    return build


def _wait_for_writer(lake: Lake, found: Found) -> None:
    """Return when no other writer of this table is alive, by its heartbeat.

    Raises:
        TransientError: its heart beats on.
    """
    deadline = time.monotonic() + lake.takeover_after_seconds
    while True:
        run = found.log.state.last_run if found.log.state else None
        if run is None or run.closed or run.writer == lake.heartbeat.writer or not lake.takeover_after_seconds:
            return
        age = lake.heartbeat.age_of(run.writer)
        if age is None or age >= lake.takeover_after_seconds:
            lake.notify("INFO", f"{found.name}: the writer since {run.started} is gone; taking over.")
            return
        if time.monotonic() >= deadline:
            raise TransientError(
                f"Another sync has been writing {found.name} since {run.started} and is alive. "
                "Run only one connection per table at a time; this one may be run again later.",
                table=str(found.name),
            )
        time.sleep(min(POLL_SECONDS, max(0.1, deadline - time.monotonic())))
        found.log.read()


def _require_latest_start(lake: Lake, found: Found) -> None:
    """The start rule: a process that slept through its successor's open stops."""
    while True:
        others = [
            run for run in (found.log.state.runs if found.log.state else ()) if run.writer != lake.heartbeat.writer
        ]
        latest = max((run.started for run in others), default="")
        if latest < lake.heartbeat.started:
            return
        if latest > lake.heartbeat.started:
            raise TransientError(
                f"A sync that started later ({latest}) has written {found.name} already; this one stops. "
                "It may be run again.",
                table=str(found.name),
            )
        lake.heartbeat.begin_again()


def _finish_commits(lake: Lake, table: Table) -> None:
    for commit in table.state.unfinished_commits():
        with ThreadPoolExecutor(max_workers=UPLOADS_AT_ONCE) as pool:
            completed = list(pool.map(partial(is_completed, lake.bucket), commit.files))  # each, also behind a lost one
        if all(completed):
            continue
        # Uploads aborted from outside: the commit was never acknowledged, and the source sends its rows again.
        table.void(commit)
        lake.notify(
            "WARN", f"{table.name}: commit {commit.seq} lost its uploads before it was acknowledged; it is void."
        )
    _clean_voids(lake, table)


def _clean_voids(lake: Lake, table: Table) -> None:
    """The one delete below a live Location: files of voided commits, by the keys in their entries."""
    state = table.state
    for commit in state.commits:
        if commit.seq not in state.voided or commit.seq <= state.applied_upto:
            continue
        for file in commit.files:
            lake.bucket.abort_upload(file.key, file.upload_id)
            lake.bucket.delete(file.key)
        if commit.replay_key is not None:
            lake.bucket.delete(commit.replay_key)


def _finish_swap(lake: Lake, table: Table) -> None:
    swap = table.state.swap
    if swap is None:
        return
    if not table.state.is_published:
        table.publish(swap)
        return
    for said in table.repair():
        lake.notify("WARN", said)


def _abort_uploads(lake: Lake, layout: Layout, table: Table) -> None:
    """Uploads of older writers that no commit knows. Those of the log's commits are completed or void by now."""
    places = {layout.data, layout.private, f"{table.state.folder}/"}  # an adopted folder may lie anywhere
    for upload in [upload for place in sorted(places) for upload in lake.bucket.uploads(place)]:
        epoch = epoch_of_file(upload.key)
        if epoch is not None and epoch < table.epoch:
            lake.bucket.abort_upload(upload.key, upload.upload_id)


def create_if_new(
    table: Table,
    *,
    columns: tuple[GlueColumn, ...],
    names: dict[str, str],
    file_format: FormatType,
    partitioning: tuple[PartitionKey, ...],
    generation: int | None,
) -> bool:
    """Publish an empty folder for a table that has none yet; whether it was new."""
    if table.state.swap is not None:
        return False
    table.swap(
        folder=table.new_folder(),
        columns=columns,
        names=names,
        file_format=file_format,
        partitioning=partitioning,
        generation=generation,
        replaces=False,
    )
    return True
