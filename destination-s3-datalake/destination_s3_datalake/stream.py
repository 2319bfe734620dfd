"""One stream of a sync: its rows on their way from the spool into files, commits and the table.

Rows are numbered per stream in order of arrival. A file covers a run of numbers, a commit covers every row up to a
STATE (``Mark``) and none behind it, so that a crash leaves a prefix of what arrived.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from destination_s3_datalake.config import Config, FormatType
from destination_s3_datalake.errors import (
    BadLineError,
    ConfigError,
    DataError,
    DatalakeError,
    InternalError,
    UnusableLineError,
)
from destination_s3_datalake.files.spool import Spool, SpooledLines, StreamSpool
from destination_s3_datalake.lake import glue, log, opening, rewrite
from destination_s3_datalake.lake import merge as merging
from destination_s3_datalake.lake.log import Commit, DataFile, Segment, TableState
from destination_s3_datalake.lake.opening import Lake, Opening
from destination_s3_datalake.lake.repair import repair_table
from destination_s3_datalake.lake.replay import ReplayFilter
from destination_s3_datalake.lake.rewrite import Workshop
from destination_s3_datalake.lake.table import UPLOADS_AT_ONCE, Table
from destination_s3_datalake.output import Output
from destination_s3_datalake.protocol.catalog import Intent, StreamId, StreamPlan, intent_of
from destination_s3_datalake.protocol.messages import Record, Records, State, bad_line, parse_message
from destination_s3_datalake.records import names
from destination_s3_datalake.records.evolution import ColumnPlan, Fits, changes, plan_columns
from destination_s3_datalake.records.files import FileOptions, WrittenFile
from destination_s3_datalake.records.ingest import IngestJob, WriteOptions, ingest, memory_for
from destination_s3_datalake.records.names import META_COLUMNS
from destination_s3_datalake.records.partitions import PartitionKey, partition_keys
from destination_s3_datalake.records.schema import EXTRA, META, ColumnType, GlueColumn, StoredType, glue_type

FIRST_RATIO = 5.0  # raw JSON to Parquet, until the first file tells


@dataclass(frozen=True, slots=True)
class Mark:
    """A STATE arrived behind row ``position``; its place in the spool file that is open."""

    position: int
    spool_rows: int
    spool_bytes: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class PendingFile:
    """Files that are uploaded and not committed, and which of their rows are stored. No file: all were replays."""

    files: tuple[DataFile, ...]
    kept: NDArray[np.bool_]
    hashes: NDArray[np.uint64]


class StreamSync:
    """The rows of one stream in one sync."""

    def __init__(
        self,
        plan: StreamPlan,
        config: Config,
        lake: Lake,
        spool: Spool,
        output: Output,
        *,
        now: Callable[[], float],
    ):
        self._plan = plan
        self._config = config
        self._lake = lake
        self._spool = spool
        self._output = output
        self._now = now
        self._table: Table | None = None
        self._intent = Intent.APPEND
        self._columns: ColumnPlan | None = None
        self._format = config.format.format_type
        self._extra_is_new = self._format in glue.BY_PLACE  # every file has it then, in its place
        self._contest: merging.Contest | None = None
        self._keys: tuple[PartitionKey, ...] = ()
        self._said_columns: tuple[GlueColumn, ...] | None = None
        self._filter = ReplayFilter(())
        self._folder = ""
        self._lines = StreamSpool(spool)
        self._pending: list[PendingFile] = []
        self._pending_bytes = 0
        self._ratio = FIRST_RATIO
        self._marks: list[Mark] = []
        self._last_state: State | None = None
        self._ends_with_state = False
        self._waiting_since: float | None = None
        self._stored = self._replayed = self._changed = 0
        self.status: Literal["COMPLETE", "INCOMPLETE"] | None = None
        self.received = 0
        self.committed = -1
        """Rows up to here are committed; -1 before anything is, a STATE without rows included."""

    @property
    def id(self) -> StreamId:
        return self._plan.id

    @property
    def is_open(self) -> bool:
        return self._table is not None

    @property
    def intent(self) -> Intent:
        return self._intent

    @property
    def spooled_bytes(self) -> int:
        return self._lines.bytes

    @property
    def has_state_to_commit(self) -> bool:
        """Whether a STATE waits that a commit now would let go."""
        return bool(self._marks) and not self._intent.holds_states

    @property
    def has_full_file(self) -> bool:
        """Whether the spooled lines make a file of the target size."""
        return self._lines.bytes >= self._full_bytes

    @property
    def has_full_commit(self) -> bool:
        """Whether the rows that wait for a commit make a file of the target size."""
        return not self._intent.holds_states and self._lines.bytes + self._pending_bytes >= self._full_bytes

    def open(self, resume: str | None) -> None:
        """Open the table; ``resume`` is the hash of the STATE that came before any record, None if none said much."""
        plan, lake = self._plan, self._lake
        database, table_names = self._names()
        lake.catalog.ensure_database(database)
        found = opening.find_table(
            lake,
            stream=(plan.id.namespace, plan.id.name),
            database=database,
            names=table_names,
            folder=names.folder_name,
        )
        state = found.log.state
        self._decide(state, resume)
        adopted = glue.adoptable_format(found.glue) if found.is_adopted and found.glue else None
        self._require_format(adopted or (state.file_format if state else None), state)
        in_glue = found.glue.columns if found.glue else ()
        self._plan_columns(in_glue, state)  # what is wrong is said before we open
        if found.is_adopted and self._keys:
            raise ConfigError(
                f"partitioning: the table of stream {self.id} is to be adopted, and adopted tables have no partitions. "
                "Leave the stream out of partitioning, or set existing_table to refuse and use another glue_database.",
                stream=self.id.name,
                namespace=self.id.namespace,
            )
        table = opening.open_table(lake, found, self._opening(resume), mode=self._intent.value)
        # Again: opening may have created the table from its log, or waited for a writer that wrote on.
        warning = self._decide(table.state, resume)
        self._require_format(table.state.file_format, table.state)
        columns = self._plan_columns(table.columns_in_glue(), table.state, table)
        opening.create_if_new(
            table,
            columns=columns.glue_columns,
            names=dict(columns.names),
            file_format=self._format,
            partitioning=self._keys,
            generation=plan.generation,
        )
        self._table, self._columns = table, columns
        for text in (warning, self._doubt(table, resume, is_new=state is None)):
            if text is not None:
                self._notify("WARN", text)
        if (needed := memory_for(columns.columns)) > self._config.memory_limit_mb:
            text = (
                f"rows of so many columns go value by value, which is several times slower: memory_limit_mb {needed} "
            )
            self._notify("INFO", f"{text}would be enough for the usual way.")
        self._prepare(table)

    def repair(self) -> bool:
        """Write a new log for this stream's table if its log is not whole; whether there is a table."""
        plan = self._plan
        database, table_names = self._names()
        stream = (plan.id.namespace, plan.id.name)
        for name, layout in opening.candidates(
            self._lake, stream=stream, database=database, names=table_names, folder=names.folder_name
        ):
            done = repair_table(self._lake, stream=stream, layout=layout, name=name)
            if done is not None:
                for text in done:
                    self._output.log("INFO", text)
                return True
        return False

    def receive(self, record: Record | Records) -> None:
        """Take one record, or lines that look like records of this stream."""
        if self._waiting_since is None:
            self._waiting_since = self._now()
        if isinstance(record, Record):
            self._lines.append(record.raw + b"\n")
            self.received += 1
        else:
            self._lines.append(record.raw, rows=record.rows, line=record.line)
            self.received += record.rows
        self._ends_with_state = False

    def mark(self, state: State) -> None:
        """A STATE of this stream arrived: everything before it may be committed up to here."""
        mark = Mark(self.received, self._lines.rows, self._lines.bytes, state.digest)
        if self._intent.holds_states:
            self._marks.clear()  # of a run that is published as a whole, only the last STATE leaves
        self._marks.append(mark)
        self._last_state = state
        self._ends_with_state = True

    def close_file(self) -> None:
        """Turn everything spooled into a file, uploaded and not yet visible. Its rows have no STATE to commit them.

        Raises:
            BadLineError: a line is no record.
        """
        lines = self._lines.take(rows=self._lines.rows, size=self._lines.bytes)
        if lines is not None:
            try:
                self._ingest(lines)
            except UnusableLineError as bad:
                raise _refusal(lines, bad.row) from None

    def commit_to_last_state(self) -> None:
        """Commit every row before the last STATE.

        Raises:
            BadLineError: a line is no record; every row before the last STATE before it is committed.
        """
        marks, self._marks = self._marks, []
        lines = self._lines.take(rows=marks[-1].spool_rows, size=marks[-1].spool_bytes)
        refusal = None
        if lines is not None:
            try:
                self._ingest(lines)
            except UnusableLineError as bad:
                refusal = _refusal(lines, bad.row)
                marks = [mark for mark in marks if mark.spool_rows <= bad.row]
                if marks and marks[-1].spool_rows:
                    self._ingest(lines.cut(rows=marks[-1].spool_rows, size=marks[-1].spool_bytes))
        if marks:
            self._commit(marks[-1].position, marks)
        if refusal is not None:
            raise refusal

    def merge_if_due(self) -> None:
        """Merge what is staged if that is much already."""
        if self._intent is Intent.UPSERT and self.is_open:
            pending = self._opened.state.pending_commits()
            if sum(file.bytes for commit in pending for file in commit.files) >= self._config.merge_every_mb << 20:
                self._merge(pending)

    def finish(self) -> DatalakeError | None:
        """The input has ended. What could not be stored or published, and why; None if all is well."""
        match self._intent:
            case Intent.APPEND:
                return self._finish_append()
            case Intent.UPSERT:
                refusal = self._finish_append()
                self._merge(self._opened.state.pending_commits())
                return refusal
            case Intent.APPEND_AT_END | Intent.REPLACE | Intent.REFRESH | Intent.REFRESH_UPSERT:
                if not self._is_the_end():
                    self._discard()
                    return self._not_the_end()
                self._publish()
                return None
            case other:
                assert_never(other)

    def close(self) -> None:
        """This run ended well."""
        self._opened.close()

    def summary(self) -> str:
        return (
            f"{self.id}: {self.received} rows received, {self._stored} stored, {self._replayed} dropped as replays, "
            f"{self._changed} with changes."
        )

    @property
    def _opened(self) -> Table:
        if self._table is None:
            raise InternalError(f"Stream {self.id} is used before it is open.")
        return self._table

    @property
    def _plan_of_columns(self) -> ColumnPlan:
        if self._columns is None:
            raise InternalError(f"Stream {self.id} is used before it is open.")
        return self._columns

    def _decide(self, state: TableState | None, resume: str | None) -> str | None:
        """Choose the intent by the log as it is; a sentence that the user should see.

        Raises:
            ConfigError: generations or keys are wrong, or the table is too large for a merge.
        """
        continues = state is not None and state.left_since_replace(resume)
        decision = intent_of(
            self._plan, published_generation=state.published_generation if state else None, continues=continues
        )
        self._intent = decision.intent
        limit = self._config.merge_limit_mb
        if self._intent is Intent.UPSERT and state is not None and state.bytes > limit << 20:
            raise ConfigError(
                f"Stream {self.id}: the table has {state.bytes >> 20} MB of Parquet, and merge_limit_mb is {limit}. "
                "append_dedup rewrites the table: raise merge_limit_mb (and give spool_directory three times as much "
                "disk), sync this stream in append mode, or split it.",
                stream=self.id.name,
                namespace=self.id.namespace,
            )
        return decision.warning

    def _require_format(self, there: FormatType | None, state: TableState | None) -> None:
        """The configured format fits the files that this run's rows will stand beside.

        Raises:
            ConfigError: it does not.
        """
        wanted, stream = self._format, {"stream": self.id.name, "namespace": self.id.namespace}
        if self._intent.is_staged and wanted != "parquet":
            raise ConfigError(
                f"Stream {self.id}: append_dedup needs Parquet, and the format is {wanted}. Set the format to parquet, "
                "or sync this stream in append or overwrite mode.",
                **stream,
            )
        if there is not None and there != wanted and not self._intent.replaces:
            raise ConfigError(
                f"Stream {self.id}: the files of its table are {there}, and the format is {wanted}. Set the format "
                f"to {there}, refresh the stream (full refresh | overwrite publishes the table in the new format), or "
                "give the table another name (a stream prefix, or another glue_database).",
                **stream,
            )
        if any(commit.rows and commit.file_format != wanted for commit in self._stands_beside(state)):
            raise ConfigError(
                f"Stream {self.id}: a refresh that was not finished has stored rows in another format than {wanted}. "
                "Set the format back and run it to its end, or start another refresh of the stream.",
                **stream,
            )

    def _stands_beside(self, state: TableState | None) -> tuple[Commit, ...]:
        """Commits that are not published, and will be together with this run's."""
        if state is None or self._intent is Intent.REPLACE:
            return ()
        return state.commits_of(self._plan.generation) if self._intent.replaces else state.pending_commits()

    def _doubt(self, table: Table, resume: str | None, *, is_new: bool) -> str | None:
        """What looks wrong about where the source resumed."""
        if resume is None or self._plan.sync_mode != "incremental":
            return None
        if is_new:
            return (
                "the source resumes where it ended before, but this table is new: "
                "rows from before come only with a refresh (reset) of the stream."
            )
        earlier = [run for run in table.state.runs if run.epoch != table.epoch]
        if not any(commit.segments for commit in table.state.commits) or table.state.knows(resume):
            return None
        return (
            f"the source resumes from a STATE that no sync of the table {table.name} has left (last written by sync "
            f"{earlier[-1].sync_id if earlier else None}, this is sync {self._plan.sync_id}). If another connection "
            "writes a stream of this name to the same table, give one of them a prefix, or set namespace_handling."
        )

    def _prepare(self, table: Table) -> None:
        """Join what a cancelled refresh left, join small files, and choose where this run's rows go."""
        state, generation = table.state, self._plan.generation
        match self._intent:
            case Intent.APPEND | Intent.APPEND_AT_END:
                if any(commit.rows for commit in state.pending_commits()):
                    self._join(table, state.pending_commits())
                else:
                    self._retype(table)
                self._compact(table)
                self._folder = table.live_folder
                self._filter = table.replay_filter(table.state.live_commits())
            case Intent.UPSERT:
                self._retype(table)
                self._compact(table)
                self._folder = table.stage
            case Intent.REPLACE:
                self._folder = table.new_folder()
            case Intent.REFRESH:
                before = state.commits_of(generation)
                folders = [commit.folder for commit in before if not commit.is_staged]
                self._folder = folders[0] if folders else table.new_folder()
                self._filter = table.replay_filter(before)
            case Intent.REFRESH_UPSERT:
                self._folder = table.stage
            case other:
                assert_never(other)
        if self._filter.unusable:
            self._notify(
                "WARN",
                f"{self._filter.unusable} commits that the source may send again were hashed by another version of "
                "this destination: rows of theirs that come again are stored again.",
            )

    def _plan_columns(
        self, in_glue: Sequence[GlueColumn], state: TableState | None, table: Table | None = None
    ) -> ColumnPlan:
        """The columns of this run on top of those that its rows will stand beside. An open table is looked into.

        Raises:
            ConfigError: a type changed, and the rows cannot be rewritten.
        """
        pending = self._stands_beside(state)
        own = state.columns if state is not None and state.swap is not None else tuple(in_glue)
        waiting = [log.columns_in(state, commit) for commit in pending] if state is not None else []
        live = () if self._intent.replaces or not own else (own,)
        known = log.names_of(pending, state.names if state else {})
        ours = {column.Name for column in own} | {*META_COLUMNS}
        columns = plan_columns(
            self._plan.json_schema,
            sources=(*live, *waiting),
            known_names=known,
            stream=str(self._plan.id),
            options=self._config.types,
            fits=self._fits(table, [None, *pending] if live else pending) if table is not None else _may_fit,
            earlier=own,
            foreign=[column for column in in_glue if column.Name not in ours],
            reserved=[key.name for key in state.partitioning] if state else [],
            is_flat=self._format in glue.BY_PLACE,
        )
        self._require_rewritable(columns, state, [*live, *waiting], pending)
        self._keys = self._partition_keys(columns, state, known)
        if self._format in glue.BY_PLACE:
            columns = replace(columns, glue_columns=_all_by_place(columns.glue_columns))
        if self._intent.is_staged:
            self._contest = merging.contest_of(
                self._plan.primary_key,
                self._plan.cursor,
                columns.columns,
                hard_deletes=self._config.cdc_deletes == "hard",
                stream=str(self.id),
            )
        return columns

    def _fits(self, table: Table, sources: Sequence[Commit | None]) -> Fits:
        """Looks at stored values: of commits, and of the table for None."""

        def fits(number: int, name: str, old: StoredType, new: ColumnType) -> bool:
            commit = sources[number]
            if commit is None:
                source = rewrite.Source(tuple(table.live_objects()), table.state.columns)
            else:
                source = rewrite.sources_of(table, [commit])[0]
            with self._scratch() as folder, self._output.progress(f"{self.id}: reading the column {name}"):
                limit = self._config.memory_limit_mb
                return rewrite.is_exact(table, source, name, old, new, folder=folder, memory_limit_mb=limit)

        return fits

    def _require_rewritable(
        self,
        columns: ColumnPlan,
        state: TableState | None,
        sources: Sequence[Sequence[GlueColumn]],
        pending: Sequence[Commit],
    ) -> None:
        """Rows whose columns have other types now can be rewritten.

        Raises:
            ConfigError: they are not Parquet, or too many.
        """
        odd = {name: pair for source in sources for name, pair in changes(source, columns.glue_columns).items()}
        if not odd or state is None:
            return
        what = ", ".join(f"{name} ({glue_type(old)} to {glue_type(new)})" for name, (old, new) in odd.items())
        ways = (
            "refresh the stream (full refresh | overwrite makes the table anew), give the field its former type in the "
            "source's schema, or give the table another name (a stream prefix, or another glue_database)."
        )
        facts = {"stream": self.id.name, "namespace": self.id.namespace}
        if self._format != "parquet":
            raise ConfigError(
                f"Stream {self.id}: fields have another type than in its table: {what}. Only Parquet files are "
                f"rewritten, and the format is {self._format}: {ways}",
                **facts,
            )
        size = sum(file.bytes for commit in pending for file in commit.files)
        size += 0 if self._intent.replaces else state.bytes
        limit = self._config.merge_limit_mb
        if size > limit << 20:
            raise ConfigError(
                f"Stream {self.id}: fields have another type than in its table: {what}. The table has {size >> 20} MB "
                f"of Parquet, which would have to be rewritten, and merge_limit_mb is {limit}: raise it, {ways}",
                **facts,
            )

    def _partition_keys(
        self, columns: ColumnPlan, state: TableState | None, known: Mapping[str, str]
    ) -> tuple[PartitionKey, ...]:
        """The keys of the table: those of the configuration, which a table that exists must have.

        Raises:
            ConfigError: it has others.
        """
        wanted = [each for each in self._config.partitioning if each.stream in (self.id.name, str(self.id))]
        exists = state is not None and state.swap is not None
        keys = partition_keys(wanted, columns.columns, known_names=known, exists=exists, stream=str(self.id))
        if exists and state is not None and keys != state.partitioning:
            there = ", ".join(f"{key.name} = {key.transform}({key.column})" for key in state.partitioning) or "none"
            raise ConfigError(
                f"partitioning: the keys of the table of stream {self.id} are: {there}; the configuration says "
                "otherwise. Glue cannot change the keys of a table at once: set partitioning as it was, or give the "
                "table another name (a stream prefix, or another glue_database).",
                stream=self.id.name,
                namespace=self.id.namespace,
            )
        return keys

    def _glue_columns(self) -> tuple[GlueColumn, ...]:
        """Our columns as Glue spells them, with ``_airbyte_extra`` once a row needed it."""
        columns = self._plan_of_columns.glue_columns
        is_there = any(column.Name == EXTRA.Name for column in columns)
        return columns if is_there or not self._extra_is_new else (*columns, EXTRA)

    @property
    def _full_bytes(self) -> float:
        return min(self._config.target_file_mb * self._ratio, self._config.spool_limit_mb / 2) * (1 << 20)

    def _names(self) -> tuple[str, tuple[str, str]]:
        namespace, name = self.id
        if namespace is None:
            database, plain = names.database_name(self._config.glue_database), names.table_name(None, name)
        elif self._config.namespace_handling == "database":
            database, plain = names.database_name(namespace), names.table_name(None, name)
        else:
            database, plain = names.database_name(self._config.glue_database), names.table_name(namespace, name)
        return database, (plain, names.with_suffix(plain, names.identity_suffix(namespace, name)))

    def _opening(self, resume: str | None) -> Opening:
        plan = self._plan
        return Opening(
            stream=(plan.id.namespace, plan.id.name),
            sync_id=plan.sync_id,
            generation=plan.generation,
            min_generation=plan.minimum,
            full_refresh=plan.sync_mode == "full_refresh",
            resume_state_hash=resume,
        )

    def _ingest(self, lines: SpooledLines) -> None:
        target = self._spool.new_path("")
        result = ingest(self._job(lines, target), self._filter.keep)
        self._changed += result.changed_rows
        self._extra_is_new = self._extra_is_new or result.has_extra
        with ThreadPoolExecutor(max_workers=UPLOADS_AT_ONCE) as pool:
            uploaded = list(pool.map(self._upload, result.files))
        shutil.rmtree(target, ignore_errors=True)
        if uploaded:
            self._ratio = max(1.0, lines.bytes / max(1, sum(file.bytes for file in uploaded)))
        self._spool.removed(lines)
        self._pending.append(PendingFile(tuple(uploaded), result.kept, result.hashes))
        self._pending_bytes += lines.bytes

    def _upload(self, file: WrittenFile) -> DataFile:
        uploaded = self._opened.upload(file.path, folder=self._folder, rows=file.rows, values=file.values)
        file.path.unlink()
        return uploaded

    def _job(self, lines: SpooledLines, target: Path) -> IngestJob:
        config = self._config
        return IngestJob(
            stream=self.id,
            lines=lines.path,
            rows=lines.rows,
            longest_line=lines.longest,
            target=target,
            columns=self._plan_of_columns.columns,
            generation_id=self._plan.generation or 0,
            sync_id=self._plan.sync_id or 0,
            options=WriteOptions(
                files=self._file_options(),
                undeclared_fields=config.undeclared_fields,
                memory_limit_mb=config.memory_limit_mb,
                temp_directory=self._spool.folder,
            ),
        )

    def _file_options(self) -> FileOptions:
        return FileOptions(
            format=self._config.format,
            memory_limit_mb=self._config.memory_limit_mb,
            columns=tuple(column.Name for column in self._plan_of_columns.glue_columns),
            partitioning=() if self._intent.is_staged else self._keys,
        )

    def _commit(self, upto: int, marks: Sequence[Mark]) -> None:
        """Commit all pending files, which end at row ``upto``: a segment per mark, and one for rows behind the last."""
        table, started = self._opened, self._now()
        kept = _joined([pending.kept for pending in self._pending], np.bool_)
        hashes = _joined([pending.hashes for pending in self._pending], np.uint64)[kept]
        files = [file for pending in self._pending for file in pending.files]
        columns = self._plan_of_columns
        if self._folder == table.live_folder:
            table.extend_columns(self._glue_columns(), columns.names)
            self._said_columns = table.state.columns
        changed = self._glue_columns() != self._said_columns
        oldest = self._now() - (self._waiting_since or started)
        table.commit(
            folder=self._folder,
            is_staged=self._intent.is_staged,
            file_format=self._format,
            files=files,
            segments=_segments(kept, first=max(self.committed, 0), upto=upto, marks=marks),
            hashes=np.empty(0, dtype=np.uint64) if self._intent.is_staged else hashes,
            generation=self._plan.generation,
            columns=self._glue_columns() if changed else None,
            names=columns.names if changed else None,
            replay_window_bytes=self._config.replay_window_mb << 20,
        )
        self._stored += len(hashes)
        self._replayed += len(kept) - len(hashes)
        self.committed = upto
        self._said_columns = self._glue_columns()
        self._pending, self._pending_bytes = [], 0
        self._waiting_since = None
        size = sum(file.bytes for file in files)
        self._notify(
            "INFO",
            f"committed {len(hashes)} rows in {len(files)} files ({size} bytes) in {self._now() - started:.1f} s; "
            f"the oldest had waited {oldest:.1f} s.",
        )

    def _finish_append(self) -> DatalakeError | None:
        behind = self.received - max(self.committed, 0)
        if not behind:
            return None
        if self.status == "COMPLETE":
            self.close_file()
            self._commit(self.received, [])
            return None
        self._discard()
        return DataError(
            f"Stream {self.id}: the input ended {behind} rows after the last STATE and the source did not say that it "
            "was complete. Those rows are not stored; everything before is. Look at the source's log and run it again.",
            stream=self.id.name,
            namespace=self.id.namespace,
            rows_not_committed=behind,
        )

    def _is_the_end(self) -> bool:
        """Whether everything of the stream has arrived (design: "When the end is the end")."""
        if self.status is not None:
            return self.status == "COMPLETE"
        match self._config.publish_without_completion:
            case "always":
                return True
            case "never":
                return False
            case "if_final_state":
                if not self._ends_with_state or self._last_state is None:
                    return False
                return self._last_state.is_final or self._is_half_as_large()

    def _is_half_as_large(self) -> bool:
        """Whether the new content has at least half the rows of the table that it replaces."""
        state = self._opened.state
        if not self._intent.replaces or state.rows is None:
            return False
        earlier = sum(commit.rows for commit in state.commits_of(self._plan.generation))
        return 2 * (earlier + self.received - max(self.committed, 0)) >= state.rows

    def _publish(self) -> None:
        """Everything that arrived becomes visible: as the table's new content, or as one commit behind the old."""
        table = self._opened
        if self._intent is Intent.REPLACE and not self.received and self._says_that_nothing_is_new(table):
            self._notify("WARN", "the source had nothing to send after a refresh that is published; nothing changed.")
            self.committed = 0
            return
        if self.received > self.committed or self._marks:
            self.close_file()
            self._commit(self.received, self._marks)
            self._marks = []
        if self._intent.replaces:
            started = self._now()
            rows = self._replace(table)
            took, now = self._now() - started, table.state
            self._notify(
                "INFO",
                f"published {rows} rows in {now.files} files ({now.bytes} bytes) as the new table in {took:.1f} s.",
            )

    def _replace(self, table: Table) -> int:
        """Publish this run's rows, and those of earlier tries of its generation, as the table; how many they are."""
        state, generation = table.state, self._plan.generation
        if generation is None:
            includes = tuple(commit for commit in state.pending_commits() if commit.epoch == table.epoch)
        else:
            includes = state.commits_of(generation)
        rows = sum(commit.rows for commit in includes)
        if self._intent is Intent.REFRESH_UPSERT and rows:
            return self._merge(includes)
        columns = log.columns_of(includes, self._glue_columns())
        names_now = log.names_of(includes, self._plan_of_columns.names)
        is_as_typed = not any(changes(source.columns, columns) for source in rewrite.sources_of(table, includes))
        if is_as_typed and {commit.folder for commit in includes} <= {self._folder} and not self._intent.is_staged:
            table.swap(
                folder=self._folder,
                columns=columns,
                names=names_now,
                file_format=self._format,
                generation=generation,
                replaces=True,
                includes=includes,
            )
        else:  # empty, or tries before were in another sync mode or had other types
            with self._workshop() as workshop:
                came, written = rewrite.placed(table, includes, columns, workshop)
                rewrite.publish(
                    table,
                    rewrite.Rewritten(came, written, rows),
                    includes=includes,
                    columns=columns,
                    names=names_now,
                    file_format=self._format,
                    generation=generation,
                    replaces=True,
                )
        return rows

    def _merge(self, pending: Sequence[Commit]) -> int:
        """Merge these rows by key, into the table or in its stead; the rows of the table then (-1: not counted)."""
        table, replaces, started = self._opened, self._intent.replaces, self._now()
        state = table.state
        if self._contest is None:
            raise InternalError(f"Stream {self.id} is merged without a key.")
        if not any(commit.rows for commit in pending):
            return 0
        live = () if replaces else tuple(table.live_objects())
        staged = rewrite.objects_of(pending)
        read = sum(found.size for found in (*live, *staged))
        with self._workshop() as workshop, self._output.progress(f"{self.id}: merging {read} bytes of Parquet"):
            is_whole = bool(live) and state.rows != 0 and state.unique_by is None
            tombstones = None
            if state.tombstones is not None and not replaces:
                tombstones = workshop.folder / "buried.parquet"
                table.download(state.tombstones, tombstones)
            merged = merging.merge(
                merging.Inputs(
                    live=tuple(rewrite.fetch(table, live, workshop.new_folder("live"))),
                    staged=tuple(self._fetch_staged(table, pending, workshop)),
                    tombstones=tombstones,
                    is_whole=is_whole,
                ),
                self._contest,
                workshop,
            )
            before = 0 if replaces else state.rows
            rows = None if before is None else before - merged.removed + merged.added
            is_new = is_whole or not live
            mine = self._glue_columns()
            columns = log.columns_of(pending, mine)
            written = rewrite.publish(
                table,
                rewrite.Rewritten(
                    tuple(live[number] for number in merged.kept),
                    merged.written,
                    rows,
                    self._contest.fields if is_new else state.unique_by,
                    merged.tombstones,
                ),
                includes=pending,
                columns=columns,
                names=log.names_of(pending, {**({} if replaces else state.names), **self._plan_of_columns.names}),
                file_format=self._format,
                generation=self._plan.generation if replaces else None,
                replaces=replaces,
            )
        now = "" if rows is None else f", {rows} rows now"
        self._notify(
            "INFO",
            f"merged {sum(commit.rows for commit in pending)} rows into the table: {merged.added} added, "
            f"{merged.removed} replaced or deleted{now}; {read} bytes read, {written} bytes in the new "
            f"folder, {len(merged.kept)} files kept as they were, {self._now() - started:.1f} s.",
        )
        return -1 if rows is None else rows

    def _fetch_staged(self, table: Table, pending: Sequence[Commit], workshop: Workshop) -> list[Path]:
        sources, folder = rewrite.sources_of(table, pending), workshop.new_folder("staged")
        return rewrite.fetch_as(table, sources, self._plan_of_columns.glue_columns, folder, workshop)

    def _join(self, table: Table, pending: Sequence[Commit]) -> None:
        self._rewrite(table, pending, "joining the rows of a refresh that was cancelled")
        self._notify(
            "INFO",
            f"joined {sum(commit.rows for commit in pending)} rows of an earlier, unfinished refresh or merge to the "
            "table.",
        )

    def _retype(self, table: Table) -> None:
        """Rewrite the table if fields have another type than its columns."""
        odd = changes(table.state.columns, self._glue_columns())
        if not odd:
            return
        started, what = self._now(), ", ".join(f"{name} as {glue_type(new)}" for name, (_, new) in odd.items())
        self._rewrite(table, (), f"rewriting the table with {what}")
        self._notify(
            "INFO",
            f"rewrote the table, whose fields have other types now: {what}; {table.state.rows} rows, "
            f"{table.state.bytes} bytes, {self._now() - started:.1f} s.",
        )

    def _rewrite(self, table: Table, pending: Sequence[Commit], what: str) -> None:
        plan = self._plan_of_columns
        with self._workshop() as workshop, self._output.progress(f"{self.id}: {what}"):
            rewrite.join(table, pending, workshop, columns=plan.glue_columns, names=plan.names)

    def _compact(self, table: Table) -> None:
        """Join small files if there are many. Only when the log says that there may be."""
        state, most = table.state, self._config.compact_files_over
        if state.files - len(state.partitions) <= most:
            return
        live, quarter = table.live_objects(), self._config.target_file_mb << 18
        small = [found for found in live if found.size < quarter]
        if state.partitioning:
            places = Counter(table.partition_path(found.key) for found in small)
            small = [found for found in small if places[table.partition_path(found.key)] > 1]
            most += sum(1 for count in places.values() if count > 1)  # each partition keeps a file at least
        if len(small) <= most:
            return
        started, chosen = self._now(), {found.key for found in small}
        with self._workshop() as workshop, self._output.progress(f"{self.id}: joining {len(small)} small files"):
            rewrite.compact(table, small, [found for found in live if found.key not in chosen], workshop)
        self._notify(
            "INFO",
            f"joined {len(small)} small files; the table has {table.state.files} files now, "
            f"{self._now() - started:.1f} s.",
        )

    @contextmanager
    def _workshop(self) -> Iterator[Workshop]:
        with self._scratch() as folder:
            yield Workshop(
                folder,
                memory_limit_mb=self._config.memory_limit_mb,
                files=replace(
                    self._file_options(), partitioning=self._keys, target_file_mb=self._config.target_file_mb
                ),
                target_file_mb=self._config.target_file_mb,
            )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self._spool.new_path("")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _says_that_nothing_is_new(self, table: Table) -> bool:
        state = self._last_state
        return self._plan.generation is None and state is not None and table.state.left_since_replace(state.digest)

    def _not_the_end(self) -> DatalakeError:
        what = "the table keeps its old rows" if self._intent.replaces else "nothing of it is stored"
        waiting = sum(commit.rows for commit in self._opened.state.commits_of(self._plan.generation))
        rest = f", {waiting} rows wait for the retry" if waiting else ""
        return DataError(
            f"Stream {self.id}: the input ended and nothing says that the full refresh was complete, so {what} "
            f"({self.received} rows had arrived{rest}). If the source ended well, set "
            "publish_without_completion to always; "
            "otherwise look at the source's log and run it again.",
            stream=self.id.name,
            namespace=self.id.namespace,
            rows_not_committed=self.received,
        )

    def _discard(self) -> None:
        """Drop what is uploaded and will not be committed."""
        for pending in self._pending:
            for file in pending.files:
                self._opened.discard(file)
        self._pending = []

    def _notify(self, level: Literal["INFO", "WARN"], text: str) -> None:
        self._output.log(level, f"{self.id}: {text}")


def _refusal(lines: SpooledLines, row: int) -> BadLineError:
    """What is wrong with a row that is no record of its stream."""
    number = lines.line_of(row)
    with lines.path.open("rb") as file:
        raw = next(line for place, line in enumerate(file) if place == row)
    try:
        parse_message(raw.removesuffix(b"\n"), line=number)
    except BadLineError as error:
        return error
    return bad_line(number, "it begins as a record of one stream and goes on as something else")


def _segments(kept: NDArray[np.bool_], *, first: int, upto: int, marks: Sequence[Mark]) -> list[Segment]:
    """Stored and dropped rows per STATE. ``kept`` are the rows from ``first`` to ``upto``."""
    ends = [(mark.position, mark.digest) for mark in marks]
    if not ends or ends[-1][0] < upto:
        ends.append((upto, None))
    segments, start = [], first
    for position, digest in ends:
        rows = int(kept[start - first : position - first].sum())
        segments.append(Segment(rows=rows, dropped=position - start - rows, state_hash=digest))
        start = position
    return segments


def _may_fit(source: int, name: str, old: StoredType, new: ColumnType) -> bool:
    """Before the table is open nobody looks into it."""
    return True


def _all_by_place(columns: Sequence[GlueColumn]) -> tuple[GlueColumn, ...]:
    """The columns of a table without nested types, with ``_airbyte_extra`` from the beginning."""
    nested = {column.Name for column in META if "<" in column.Type}
    flat = [c.model_copy(update={"Type": "string"}) if c.Name in nested else c for c in columns]
    return (*flat, *([] if any(column.Name == EXTRA.Name for column in flat) else [EXTRA]))


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
