"""One stream of a sync: its rows on their way from the spool into files, commits and the table.

Rows are numbered per stream in order of arrival. A file covers a run of numbers, a commit covers every row up to a
STATE (``Mark``) and none behind it, so that a crash leaves a prefix of what arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from destination_s3_datalake.config import Config
from destination_s3_datalake.errors import DataError, DatalakeError, InternalError
from destination_s3_datalake.files.spool import Spool, SpooledLines, StreamSpool
from destination_s3_datalake.lake import opening
from destination_s3_datalake.lake.log import DataFile, Segment, TableState
from destination_s3_datalake.lake.opening import Lake, Opening
from destination_s3_datalake.lake.replay import ReplayFilter
from destination_s3_datalake.lake.table import Table
from destination_s3_datalake.output import Output
from destination_s3_datalake.protocol.catalog import Intent, StreamId, StreamPlan, intent_of
from destination_s3_datalake.protocol.messages import Record, State
from destination_s3_datalake.records import names
from destination_s3_datalake.records.ingest import IngestJob, WriteOptions, ingest
from destination_s3_datalake.records.schema import EXTRA, ColumnPlan, GlueColumn, plan_columns

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
    """A file that is uploaded and not committed, and which of its rows are stored. None: all were replays."""

    file: DataFile | None
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
        self._extra_is_new = False
        self._filter = ReplayFilter(())
        self._folder = ""
        self._lines = StreamSpool(spool)
        self._pending: list[PendingFile] = []
        self._pending_bytes = 0
        self._ratio = FIRST_RATIO
        self._marks: list[Mark] = []
        self._last_state: State | None = None
        self._ends_with_state = False
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
        continues = state is not None and state.left_since_replace(resume)
        self._intent = intent_of(
            plan, published_generation=state.published_generation if state else None, continues=continues
        )
        self._plan_columns(found.glue.columns if found.glue else (), state)  # what is wrong is said before we open
        if state is None and resume is not None and plan.sync_mode == "incremental":
            self._notify(
                "WARN",
                "the source resumes where it ended before, but this table is new: "
                "rows from before come only with a refresh (reset) of the stream.",
            )
        table = opening.open_table(lake, found, self._opening(resume), mode=self._intent.value)
        # Again: opening may have created the table from its log, or waited for a writer that added columns.
        columns = self._plan_columns(table.columns_in_glue(), table.state)
        opening.create_if_new(
            table, columns=columns.glue_columns, names=dict(columns.names), generation=plan.generation
        )
        self._table, self._columns = table, columns
        if self._intent is Intent.REPLACE:
            self._folder = table.new_folder()
        else:
            self._folder = table.live_folder
            self._filter = table.replay_filter()

    def receive(self, record: Record) -> None:
        """Take one record."""
        self._lines.append(record.raw, line=record.line)
        self.received += 1
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
        """Turn everything spooled into a file, uploaded and not yet visible. Its rows have no STATE to commit them."""
        self._ingest(self._lines.take(rows=self._lines.rows, size=self._lines.bytes))

    def commit_to_last_state(self) -> None:
        """Commit every row before the last STATE, in the live folder."""
        last = self._marks[-1]
        self._ingest(self._lines.take(rows=last.spool_rows, size=last.spool_bytes))
        self._commit(last.position, self._marks)
        self._marks = []

    def finish(self) -> DatalakeError | None:
        """The input has ended. What could not be stored or published, and why; None if all is well."""
        match self._intent:
            case Intent.APPEND:
                return self._finish_append()
            case Intent.APPEND_AT_END | Intent.REPLACE:
                if not self._is_the_end():
                    self._discard()
                    return self._not_the_end()
                self._publish()
                return None

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

    def _plan_columns(self, existing: Sequence[GlueColumn], state: TableState | None) -> ColumnPlan:
        return plan_columns(
            self._plan.json_schema,
            existing=() if self._intent is Intent.REPLACE else existing,
            known_names=state.names if state else {},
            stream=str(self._plan.id),
        )

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

    def _ingest(self, lines: SpooledLines | None) -> None:
        if lines is None:
            return
        target = self._spool.new_path(".parquet")
        result = ingest(self._job(lines, target), self._filter.keep)
        self._changed += result.changed_rows
        self._extra_is_new = self._extra_is_new or result.has_extra
        file = None
        if result.rows:
            file = self._opened.upload(result.path, folder=self._folder, rows=result.rows)
            self._ratio = max(1.0, lines.bytes / max(1, result.bytes))
            result.path.unlink()
        self._spool.removed(lines)
        self._pending.append(PendingFile(file, result.kept, result.hashes))
        self._pending_bytes += lines.bytes

    def _job(self, lines: SpooledLines, target: Path) -> IngestJob:
        config = self._config
        return IngestJob(
            lines=lines.path,
            rows=lines.rows,
            target=target,
            columns=self._plan_of_columns.columns,
            generation_id=self._plan.generation or 0,
            sync_id=self._plan.sync_id or 0,
            options=WriteOptions(
                compression=config.format.compression,
                undeclared_fields=config.undeclared_fields,
                memory_limit_mb=config.memory_limit_mb,
                temp_directory=self._spool.folder,
            ),
        )

    def _commit(self, upto: int, marks: Sequence[Mark]) -> None:
        """Commit all pending files, which end at row ``upto``: a segment per mark, and one for rows behind the last."""
        table, started = self._opened, self._now()
        kept = _joined([pending.kept for pending in self._pending], np.bool_)
        hashes = _joined([pending.hashes for pending in self._pending], np.uint64)[kept]
        files = [pending.file for pending in self._pending if pending.file is not None]
        columns = self._plan_of_columns
        in_glue = self._folder == table.live_folder
        if in_glue:
            table.extend_columns(self._glue_columns(), columns.names)
        changed = in_glue and self._glue_columns() != table.state.columns
        table.commit(
            folder=self._folder,
            files=files,
            segments=_segments(kept, first=max(self.committed, 0), upto=upto, marks=marks),
            hashes=hashes,
            generation=self._plan.generation,
            columns=self._glue_columns() if changed else None,
            names=columns.names if changed else None,
            replay_window_bytes=self._config.replay_window_mb << 20,
        )
        self._stored += len(hashes)
        self._replayed += len(kept) - len(hashes)
        self.committed = upto
        self._pending, self._pending_bytes = [], 0
        size = sum(file.bytes for file in files)
        self._notify(
            "INFO",
            f"committed {len(hashes)} rows in {len(files)} files ({size} bytes) in {self._now() - started:.1f} s.",
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
                return self._ends_with_state and self._last_state is not None and self._last_state.is_final

    def _publish(self) -> None:
        """Everything that arrived becomes visible: as the table's new content, or as one commit behind the old."""
        table = self._opened
        if self._intent is Intent.REPLACE and not self.received and self._says_that_nothing_is_new(table):
            self._notify("WARN", "the source had nothing to send after a refresh that is published; nothing changed.")
            self.committed = 0
            return
        self.close_file()
        self._commit(self.received, self._marks)
        if self._intent is Intent.REPLACE:
            started = self._now()
            table.swap(
                folder=self._folder,
                columns=self._glue_columns(),
                names=self._plan_of_columns.names,
                generation=self._plan.generation,
                replaces=True,
            )
            self._notify("INFO", f"published {self._stored} rows as the new table in {self._now() - started:.1f} s.")

    def _says_that_nothing_is_new(self, table: Table) -> bool:
        state = self._last_state
        return self._plan.generation is None and state is not None and table.state.left_since_replace(state.digest)

    def _not_the_end(self) -> DatalakeError:
        what = "the table keeps its old rows" if self._intent is Intent.REPLACE else "nothing of it is stored"
        return DataError(
            f"Stream {self.id}: the input ended and nothing says that the full refresh was complete, so {what} "
            f"({self.received} rows had arrived). If the source ended well, set publish_without_completion to always; "
            "otherwise look at the source's log and run it again.",
            stream=self.id.name,
            namespace=self.id.namespace,
            rows_not_committed=self.received,
        )

    def _discard(self) -> None:
        """Drop what is uploaded and will not be committed."""
        for pending in self._pending:
            if pending.file is not None:
                self._opened.discard(pending.file)
        self._pending = []

    def _notify(self, level: Literal["INFO", "WARN"], text: str) -> None:
        self._output.log(level, f"{self.id}: {text}")


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


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
