"""One open table: upload files aside, commit them, publish folders. The order of every step is the protocol.

A file is durable before it is visible: it is uploaded in parts and left incomplete until its ``commit`` entry stands in
the log. A crash between any two calls leaves work that the next opener finishes (``opening.py``). After ``commit``
returns, its rows are in the log and visible, and the STATEs behind them may leave.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.errors import ConfigError, FencedError, TransientError
from destination_s3_datalake.lake import garbage, glue, log, partitions, replay
from destination_s3_datalake.lake.garbage import Retention
from destination_s3_datalake.lake.glue import Catalog, GlueTable, TableMovedError
from destination_s3_datalake.lake.layout import Layout, suffix_of
from destination_s3_datalake.lake.log import Adopt, Segment, Swap, TableState
from destination_s3_datalake.lake.s3 import Bucket, ListedObject, NoSuchUploadError
from destination_s3_datalake.lake.table_log import TableLog
from destination_s3_datalake.records.partitions import PartitionKey, Values, path_of, values_of
from destination_s3_datalake.records.schema import GlueColumn

PART_BYTES = 16 << 20
MOST_PARTS = 10_000
PUBLISH_ATTEMPTS = 50
UPLOADS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class TableName:
    """A table in Glue, and the stream it belongs to."""

    database: str
    table: str
    stream: tuple[str | None, str]

    def __str__(self) -> str:
        return f"{self.database}.{self.table}"


class Table:
    """A table that this process has opened. Made by ``opening.open_table``."""

    def __init__(
        self, bucket: Bucket, catalog: Catalog, layout: Layout, name: TableName, table_log: TableLog, *, epoch: int
    ):
        self._bucket = bucket
        self._catalog = catalog
        self._layout = layout
        self._log = table_log
        self._folders = 0
        self._applied = epoch
        self._is_clean = False
        self.name = name
        self.epoch = epoch

    @property
    def state(self) -> TableState:
        """The log of this table as far as this writer knows it."""
        state = self._log.state
        assert state is not None  # opening appended an entry
        return state

    @property
    def live_folder(self) -> str:
        folder = self.state.folder
        assert folder is not None  # opening published one
        return folder

    def new_folder(self) -> str:
        """A folder that no other writer can name and no reader lists."""
        self._folders += 1
        return self._layout.folder(self.epoch, self._folders, secrets.token_hex(4))

    @property
    def stage(self) -> str:
        """The folder of rows that wait for a merge."""
        return self._layout.stage

    def replay_filter(self, target: Sequence[log.Commit]) -> replay.ReplayFilter:
        """Drops what this run's source may send again of the rows of ``target``."""
        return replay.load(self._bucket, log.replayable(self.state, target))

    def live_objects(self) -> list[ListedObject]:
        """The data files of the table as they lie in the bucket."""
        return self._data_objects(self.live_folder)

    def _data_objects(self, folder: str) -> list[ListedObject]:
        found = self._bucket.objects(f"{folder}/")
        return [item for item in found if item.size and not item.key.rpartition("/")[2].startswith(("_", "."))]

    def download(self, key: str, path: Path) -> None:
        """Fetch a data file."""
        self._bucket.download(key, path)

    def take_over(self, source: str, folder: str, *, size: int) -> log.StoredFile:
        """Copy a data file into ``folder``, which is of this writer alone, server side; its partition stays."""
        path = self.partition_path(source)
        key = self._new_key(f"{folder}/{path}" if path else folder, suffix_of(source))
        self._bucket.copy(source, key, size=size)
        return log.StoredFile(key=key, bytes=size)

    def store(self, path: Path, folder: str, values: Values = ()) -> log.StoredFile:
        """Upload a local file into ``folder``, which is of this writer alone and read by nobody yet."""
        file = self.upload(path, folder=folder, rows=0, values=values)
        self._complete(file)
        return log.StoredFile(key=file.key, bytes=file.bytes)

    def store_tombstones(self, path: Path) -> str:
        """Upload the keys of deleted rows; the object's key."""
        key = self._layout.tombstones(self.state.next_seq, self.epoch, secrets.token_hex(4))
        self._complete(self._upload(path, key, rows=0))
        return key

    def partitions_in(self, files: Iterable[log.DataFile] | Iterable[log.StoredFile]) -> tuple[Values, ...]:
        """The partitions that these files are in, each once."""
        paths = {self.partition_path(file.key) for file in files}
        return tuple(values_of(path) for path in sorted(paths) if path)

    def partition_path(self, key: str) -> str:
        """The partition's part of a data file's key; empty in a table without partitions, and in the stage."""
        parts = key.split("/")[-1 - len(self.state.partitioning) : -1]
        return "" if key.startswith(f"{self.stage}/") else "/".join(parts)

    def upload(self, path: Path, *, folder: str, rows: int, values: Values = ()) -> log.DataFile:
        """Upload a closed local file into ``folder`` and leave it incomplete: durable, and invisible to every reader.

        Raises:
            FencedError: somebody aborted the upload.
        """
        below = f"{folder}/{path_of(self.state.partitioning, values)}" if values else folder
        return self._upload(path, self._new_key(below, suffix_of(path.name)), rows=rows)

    def _new_key(self, folder: str, suffix: str) -> str:
        return self._layout.data_file(folder, self.state.next_seq, self.epoch, secrets.token_hex(4), suffix)

    def _upload(self, path: Path, key: str, *, rows: int) -> log.DataFile:
        size = path.stat().st_size
        part_bytes = max(PART_BYTES, math.ceil(size / MOST_PARTS))
        checksum = hashlib.sha256()
        etags: list[str] = []
        upload_id = self._bucket.start_upload(key)
        try:
            with path.open("rb") as file:
                while body := file.read(part_bytes):
                    checksum.update(body)
                    etags.append(self._bucket.upload_part(key, upload_id, number=len(etags) + 1, body=body))
        except NoSuchUploadError:
            raise self._uploads_gone() from None
        return log.DataFile(
            key=key, upload_id=upload_id, etags=tuple(etags), rows=rows, bytes=size, checksum=checksum.hexdigest()
        )

    def discard(self, file: log.DataFile) -> None:
        """Drop an upload that will not be committed."""
        self._bucket.abort_upload(file.key, file.upload_id)

    def commit(
        self,
        *,
        folder: str,
        is_staged: bool = False,
        file_format: FormatType,
        files: Sequence[log.DataFile],
        segments: Sequence[Segment],
        hashes: replay.Hashes,
        generation: int | None,
        columns: tuple[GlueColumn, ...] | None,
        names: Mapping[str, str] | None,
        replay_window_bytes: int,
    ) -> None:
        """Make ``files`` and the STATEs of ``segments`` durable, then visible.

        Args:
            folder: where the files are: the live folder, one that ``swap`` will publish, or the stage.
            is_staged: it is the stage.
            segments: rows per STATE, in order; their sum is the number of ``hashes``.
            columns: our columns from here on, None if they did not change. Those of the live folder must be in Glue
                before (``extend_columns``).

        Raises:
            FencedError: a newer writer has opened the table; nothing was committed, or the newer one completes it.
        """
        replay_key = None
        if 0 < hashes.nbytes <= replay_window_bytes:
            replay_key = self._layout.replay(self.state.next_seq, self.epoch, secrets.token_hex(4))
            self._bucket.put(replay_key, replay.packed(hashes))
        known = self._known_partitions(folder)
        new = tuple(values for values in self.partitions_in(files) if values not in known)
        entry = self._log.append_or_stop(
            lambda seq, uid, now: log.Commit(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, folder=folder,
                is_staged=is_staged, file_format=file_format, partitions=new, generation=generation,
                files=tuple(files), segments=tuple(segments), replay_key=replay_key,
                columns=columns, names=dict(names) if names is not None else None, applied_upto=self._applied,
            )
        )  # fmt: skip
        with ThreadPoolExecutor(max_workers=UPLOADS_AT_ONCE) as pool:
            list(pool.map(self._complete, files))
        if folder == self.state.folder:
            self._register(new)
        self._applied = entry.seq
        self._shrink_replay(replay_window_bytes)

    def _known_partitions(self, folder: str) -> frozenset[Values]:
        if folder == self.state.folder:
            return frozenset(self.state.partitions)
        before = (commit for commit in self.state.pending_commits() if commit.folder == folder)
        return frozenset(values for commit in before for values in commit.partitions)

    def _register(self, new: Collection[Values]) -> None:
        """Show partitions of the live folder, whose files are complete, to readers."""
        if new:
            where = {values: self._location_of(self.live_folder, values) for values in new}
            partitions.register(self._catalog, self._place(), where, self._log.require_latest)

    def _synchronise(self, columns: tuple[GlueColumn, ...] | None = None) -> partitions.Repaired:
        """Let Glue show the partitions of the log with our columns, and no other ones of ours."""
        if not self.state.partitioning:
            return partitions.Repaired(0, 0, 0)
        where = {values: self._location_of(self.live_folder, values) for values in self.state.partitions}
        return partitions.synchronise(self._catalog, self._place(columns), where, self._log.require_latest)

    def _location_of(self, folder: str, values: Values) -> str:
        return self._layout.location(f"{folder}/{path_of(self.state.partitioning, values)}")

    def _place(self, columns: tuple[GlueColumn, ...] | None = None) -> partitions.Place:
        table = self._catalog.table(self.name.database, self.name.table)
        if table is None:
            raise TransientError(f"The table {self.name} vanished from Glue during the sync. Run it again.")
        self._require_ours(table)
        return partitions.Place(
            self.name.database,
            table,
            self.state.columns if columns is None else columns,
            self.state.file_format or "parquet",
            self._layout.root,
        )

    def swap(
        self,
        *,
        folder: str,
        columns: tuple[GlueColumn, ...],
        names: Mapping[str, str],
        file_format: FormatType,
        partitioning: tuple[PartitionKey, ...] | None = None,
        generation: int | None,
        replaces: bool,
        includes: Sequence[log.Commit] = (),
        files: Sequence[log.StoredFile] | None = None,
        rows: int | None = None,
        unique_by: tuple[str, ...] | None = None,
        tombstones: str | None = None,
    ) -> None:
        """Make a complete folder the table: one entry, one ``UpdateTable``, one entry.

        Args:
            partitioning: the keys of a table that is new; those of one that exists stay.
            includes: the pending commits whose rows are in the folder.
            files, rows: what is in the folder, if it was rewritten; None if it holds the files of ``includes``.
            unique_by: fields by which each row is the only one.
            tombstones: object with the keys of deleted rows.

        Raises:
            FencedError: a newer writer has opened or moved the table.
        """
        upto = self.state.commits[-1].seq if self.state.commits else -1
        keys = self.state.partitioning if partitioning is None else partitioning
        there = {values for commit in includes for values in commit.partitions} if files is None else ()
        places = self.partitions_in(files) if files is not None else tuple(sorted(there))
        entry = self._log.append_or_stop(
            lambda seq, uid, now: log.Swap(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, folder=folder,
                columns=columns, names=dict(names), file_format=file_format, partitioning=keys,
                partitions=places, generation=generation, upto=upto, replaces=replaces,
                includes=tuple(commit.seq for commit in includes), files=None if files is None else tuple(files),
                rows=rows, unique_by=unique_by, tombstones=tombstones,
            )
        )  # fmt: skip
        self._is_clean = False
        self.publish(entry)

    def adopt(self) -> int:
        """Make the table that stands in Glue ours, where it is; the number of its files."""
        table = self._catalog.table(self.name.database, self.name.table)
        if table is None:
            raise TransientError(f"The table {self.name} vanished from Glue during the sync. Run it again.")
        folder = table.location.removeprefix(f"s3://{self._bucket.name}/").rstrip("/")
        files = tuple(log.StoredFile(key=item.key, bytes=item.size) for item in self._data_objects(folder))
        file_format = glue.adoptable_format(table) or "parquet"
        entry = self._log.append_or_stop(
            lambda seq, uid, now: log.Adopt(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, folder=folder,
                columns=table.columns, names={}, files=files, file_format=file_format,
            )
        )  # fmt: skip
        self.publish(entry)
        return len(files)

    def publish(self, swap: Swap | Adopt) -> None:
        """Point Glue at the folder of a swap entry, then log that it does."""
        self._move(swap)
        self._synchronise()
        entry = self._log.append_or_stop(
            lambda seq, uid, now: log.Published(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, swap_seq=swap.seq
            )
        )
        self._applied = entry.seq

    def repair(self) -> list[str]:
        """Put back what somebody else changed in Glue; sentences that say what."""
        said = self._repair_table()
        done = self._synchronise()
        if done.total:
            said.append(
                f"Partitions of {self.name} in Glue were not those of its log: {done.created} were created, "
                f"{done.changed} set right, {done.dropped} dropped."
            )
        return said

    def _repair_table(self) -> list[str]:
        swap = self.state.swap
        assert swap is not None  # opening published one
        table = self._catalog.table(self.name.database, self.name.table)
        if table is None:
            self._move(swap)
            return [f"The table {self.name} was dropped in Glue; it was created again from its log."]
        if table.location.rstrip("/") != self._layout.location(swap.folder).rstrip("/"):
            self._move(swap)
            return [f"The Location of {self.name} had been changed in Glue; it was set back to the committed folder."]
        present = [column.model_dump() for column in table.columns]
        if not partitions.shows(present, self.state.columns, swap.file_format):
            self._move(swap)
            return [f"Columns of {self.name} had been changed in Glue; they were set back to those of its files."]
        if table.serde != glue.STORAGE[swap.file_format].serde:
            self._move(swap)
            return [f"The SerDe of {self.name} had been changed in Glue; it was set back to that of its files."]
        return []

    def columns_in_glue(self) -> tuple[GlueColumn, ...]:
        """The table's columns as they stand in Glue, those of others included; none if there is no table."""
        table = self._catalog.table(self.name.database, self.name.table)
        return table.columns if table is not None else ()

    def extend_columns(self, columns: Sequence[GlueColumn], names: Mapping[str, str]) -> None:
        """Add columns in Glue, before the first file that has them appears."""
        parameters = {glue.COLUMNS: names_parameter(names)}

        def change(table: GlueTable | None) -> None:
            if table is None:
                raise TransientError(f"The table {self.name} vanished from Glue during the sync. Run it again.")
            self._require_ours(table)
            present = {column.Name: column.Type for column in table.columns}
            if any(present.get(column.Name) != column.Type for column in columns):
                file_format = self.state.file_format or "parquet"
                definition = glue.with_columns(table.definition, columns, parameters, file_format)
                self._catalog.update_table(self.name.database, definition, version=table.version)

        self._insist(change)
        if tuple(columns) != self.state.columns:  # also if a writer died between the table and its partitions
            self._synchronise(tuple(columns))

    def close(self) -> None:
        """Say in the log that this run ended well. Call it after its STATEs were flushed."""
        self._log.append_or_stop(
            lambda seq, uid, now: log.Close(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, applied_upto=self._applied,
                is_clean=self._is_clean,
            )
        )  # fmt: skip
        self._log.write_checkpoint()

    def void(self, commit: log.Commit) -> None:
        """Say that a commit never happened. Only openers do."""
        self._log.append_or_stop(
            lambda seq, uid, now: log.Void(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, commit_seq=commit.seq
            )
        )

    def collect_garbage(self, retention: Retention) -> str | None:
        """Delete what nobody needs; a sentence if that could not be done.

        Nothing is listed while the log says that nothing can be there.

        Raises:
            FencedError: a newer writer has opened the table; nothing was deleted.
        """
        if not garbage.is_due(self.state):
            return None
        found = garbage.find(self._bucket, self._layout, self.state, epoch=self.epoch, retention=retention)
        keys = garbage.keys_of(self._bucket, found)
        if not keys:
            self._is_clean = True
            return None
        self._log.append_or_stop(
            lambda seq, uid, now: log.Garbage(
                seq=seq, epoch=self.epoch, uid=uid, log_id=self.state.log_id, time=now, folders=found.folders,
                keys=tuple(keys),
            )
        )  # fmt: skip
        problem = garbage.delete(self._bucket, keys)
        if problem is None:
            self._is_clean = len(keys) < garbage.MOST_KEYS
            return None
        return f"{len(keys)} objects that nobody needs any more could not be deleted: {problem}"

    def has_applied(self, seq: int) -> None:
        """Everything up to entry ``seq`` is finished; later entries say so."""
        self._applied = max(self._applied, seq)

    def _move(self, swap: Swap | Adopt) -> None:
        location = self._layout.location(swap.folder)
        columns = self.state.columns or swap.columns
        parameters = self._parameters(swap)

        def change(table: GlueTable | None) -> None:
            if table is None:
                definition = glue.new_table(
                    self.name.table,
                    location=location,
                    columns=columns,
                    parameters=parameters,
                    file_format=swap.file_format,
                    partition_keys=[key.name for key in swap.partitioning],
                )
                self._catalog.create_table(self.name.database, definition)
                return
            self._require_ours(table)
            if table.seq > swap.seq:
                raise FencedError(
                    f"The table {self.name} was published by a newer sync while this one ran; this one stops.",
                    table=str(self.name),
                )
            gone = ours_in(table) - {column.Name for column in columns} if swap.replaces else frozenset()
            definition = glue.moved(
                without_columns(table.definition, gone),
                location=location,
                columns=columns,
                parameters=parameters,
                file_format=swap.file_format,
            )
            if definition != table.definition:
                self._catalog.update_table(self.name.database, definition, version=table.version)

        self._insist(change)

    def _insist(self, change: object) -> None:
        """Read the table and change it, again and again while others change it too or Glue is busy."""
        assert callable(change)
        for attempt in range(PUBLISH_ATTEMPTS):
            try:
                change(self._catalog.table(self.name.database, self.name.table))
                return
            except TableMovedError:
                pass
            except FencedError:
                raise
            except TransientError:
                if attempt == PUBLISH_ATTEMPTS - 1:
                    raise
            time.sleep(random.uniform(0, min(5.0, 0.05 * 2**attempt)))  # noqa: S311  # jitter, not a secret
        raise TransientError(
            f"The table {self.name} is changed by others all the time (a crawler?): {PUBLISH_ATTEMPTS} tries failed."
        )

    def _require_ours(self, table: GlueTable) -> None:
        owner = table.parameters.get(glue.LOG_ID)
        is_being_adopted = owner is None and isinstance(self.state.swap, Adopt)
        if owner != self.state.log_id and not is_being_adopted:
            raise ConfigError(
                f"The table {self.name} in Glue does not belong to the log of this stream: somebody made another table "
                "of this name. Drop or rename it, or choose another glue_database.",
                table=str(self.name),
            )

    def _parameters(self, swap: Swap | Adopt) -> dict[str, str]:
        import orjson

        parameters = {
            glue.LOG_ID: self.state.log_id,
            glue.SEQ: str(swap.seq),
            glue.STREAM: stream_parameter(self.name.stream),
            glue.COLUMNS: names_parameter(self.state.names),
        }
        if swap.partitioning:
            keys = [key.model_dump() for key in swap.partitioning]
            parameters[glue.PARTITIONING] = orjson.dumps(keys).decode()
        if self.state.published_generation is not None:
            parameters[glue.GENERATION] = str(self.state.published_generation)
        return parameters

    def _shrink_replay(self, window: int) -> None:
        """Delete the oldest hashes beyond the window; the newest commits are those that may come again."""
        used = 0
        for commit in reversed(self.state.live_commits()):
            if commit.replay_key is None:
                continue
            used += 8 * sum(segment.rows for segment in commit.segments)
            if used > window:
                self._bucket.delete(commit.replay_key)
                return  # older ones went when their successors came

    def _complete(self, file: log.DataFile) -> None:
        if not is_completed(self._bucket, file):
            raise self._uploads_gone()

    def _uploads_gone(self) -> FencedError:
        return FencedError(
            f"The uploads of this sync for {self.name} were aborted from outside: by a newer sync, or by a lifecycle "
            "rule that aborts uploads too early. Nothing that was acknowledged is lost; run the sync again.",
            table=str(self.name),
        )


def is_completed(bucket: Bucket, file: log.DataFile) -> bool:
    """Complete an upload, or see that it was completed; False if it is gone."""
    try:
        bucket.complete_upload(file.key, file.upload_id, file.etags)
    except NoSuchUploadError:
        found = bucket.head(file.key)
        return found is not None and found.size == file.bytes
    return True


def stream_parameter(stream: tuple[str | None, str]) -> str:
    """``airbyte_stream``: namespace and name as JSON."""
    import orjson

    return orjson.dumps(list(stream)).decode()


def names_parameter(names: Mapping[str, str]) -> str:
    """``airbyte_columns``: original field name -> column name, as JSON."""
    import orjson

    return orjson.dumps(dict(names), option=orjson.OPT_SORT_KEYS).decode()


def ours_in(table: GlueTable) -> frozenset[str]:
    """Names of the columns that this destination made."""
    import orjson

    try:
        mapping = orjson.loads(table.parameters.get(glue.COLUMNS, "{}"))
    except orjson.JSONDecodeError:
        return frozenset()
    return frozenset(mapping.values()) if isinstance(mapping, dict) else frozenset()


def partitioning_of(table: GlueTable) -> tuple[PartitionKey, ...]:
    """The keys of a table of ours, as its parameters say them."""
    import orjson

    return tuple(PartitionKey(**key) for key in orjson.loads(table.parameters.get(glue.PARTITIONING, "[]")))


def without_columns(definition: glue.TableInput, gone: Collection[str]) -> glue.TableInput:
    """The definition without these columns."""
    if not gone:
        return definition
    descriptor = definition["StorageDescriptor"]
    kept = [column for column in descriptor.get("Columns", ()) if column["Name"] not in gone]
    return {**definition, "StorageDescriptor": {**descriptor, "Columns": kept}}


def no_hashes() -> replay.Hashes:
    return np.empty(0, dtype=np.uint64)
