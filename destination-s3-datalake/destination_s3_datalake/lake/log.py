"""The log of a table: what an entry says, and the state of a table as a pure fold over its entries.

The log is the only truth about a table. Everything that readers see (completed uploads, the Glue table) is a repeatable
consequence of an entry, so that a writer that dies anywhere leaves work that the next one finishes. Entries are
immutable objects, numbered without a gap from 0, each PUT with ``If-None-Match: *`` and never deleted.

Pure: no I/O here. ``table_log.py`` reads and appends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from destination_s3_datalake.errors import ConfigError, InternalError
from destination_s3_datalake.records.schema import GlueColumn

FORMAT = 1


class DataFile(BaseModel):
    """A data file of a commit: a multipart upload that the commit entry makes durable and ``complete`` visible."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    upload_id: str
    etags: tuple[str, ...]
    rows: int
    bytes: int
    checksum: str
    """SHA-256 of the whole file, hexadecimal."""


class Segment(BaseModel):
    """Rows that arrived before one STATE, behind the one before it: stored ones, and replays that were dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: int
    dropped: int = 0
    state_hash: str | None


class EntryBase(BaseModel):
    """What every entry carries. ``epoch`` is the number of the writer's own ``open`` entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    seq: int = Field(ge=0)
    epoch: int = Field(ge=0)
    uid: str
    log_id: str
    time: str


class Open(EntryBase):
    """A writer begins. From here on every older writer is fenced."""

    type: Literal["open"] = "open"
    stream: tuple[str | None, str]
    """Namespace and name of the stream whose table this is."""
    writer: str
    started: str
    """When S3 stamped the writer's heartbeat object: ISO 8601, UTC."""
    sync_id: int | None
    generation: int | None
    min_generation: int | None
    mode: str
    resume_state_hash: str | None
    full_refresh: bool


class Commit(EntryBase):
    """The commit point: these files, and the STATEs that they stand behind, are durable."""

    type: Literal["commit"] = "commit"
    folder: str
    generation: int | None
    files: tuple[DataFile, ...]
    segments: tuple[Segment, ...]
    replay_key: str | None
    columns: tuple[GlueColumn, ...] | None
    """Our columns from here on, None if they did not change."""
    names: dict[str, str] | None
    applied_upto: int


class Swap(EntryBase):
    """A complete new folder becomes the table."""

    type: Literal["swap"] = "swap"
    folder: str
    columns: tuple[GlueColumn, ...]
    names: dict[str, str]
    generation: int | None
    upto: int
    """Seq of the last commit that this folder includes; -1 for none."""
    replaces: bool
    """Whether the rows before are gone (a replace), rather than carried over (a rewrite)."""


class Published(EntryBase):
    """Glue points at the folder of that swap."""

    type: Literal["published"] = "published"
    swap_seq: int


class Void(EntryBase):
    """A commit that was never acknowledged and whose uploads are gone: it never happened."""

    type: Literal["void"] = "void"
    commit_seq: int


class Garbage(EntryBase):
    """These keys are deleted from here on. It is the fence before the deletes."""

    type: Literal["garbage"] = "garbage"
    folders: tuple[str, ...]
    keys: tuple[str, ...]


class Close(EntryBase):
    """The writer ended well: everything it committed is applied, and its STATEs are flushed."""

    type: Literal["close"] = "close"
    applied_upto: int


Entry = Annotated[Open | Commit | Swap | Published | Void | Garbage | Close, Field(discriminator="type")]
_ENTRY: TypeAdapter[Open | Commit | Swap | Published | Void | Garbage | Close] = TypeAdapter(Entry)


def parse_entry(body: bytes, *, table: str, seq: int) -> Open | Commit | Swap | Published | Void | Garbage | Close:
    """One log object as an entry.

    Raises:
        ConfigError: it is of a newer format, or of a type that this version does not know.
    """
    try:
        entry = _ENTRY.validate_json(body)
    except ValidationError as cause:
        raise ConfigError(
            f"Entry {seq} of the log of {table} is not one that this version understands. "
            "It was written by a newer version of this destination: use that version or a newer one.",
            table=table,
            seq=seq,
            problems=cause.error_count(),
        ) from None
    if entry.seq != seq:
        raise ConfigError(f"Entry {seq} of the log of {table} says that it is entry {entry.seq}: the log was moved.")
    return entry


def entry_json(entry: EntryBase) -> bytes:
    """The entry as it is stored."""
    return entry.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """Segment ``index`` of the commit with number ``commit``; index -1 with commit -1 is the root of the tree."""

    commit: int
    index: int


ROOT = SegmentRef(-1, -1)


class Run(BaseModel):
    """One writer's life in the log, and where it hangs in the tree of resume points."""

    model_config = ConfigDict(frozen=True)
    epoch: int
    sync_id: int | None
    full_refresh: bool
    started: str
    writer: str
    resume_state_hash: str | None
    parent: SegmentRef
    known: bool
    """Whether ``parent`` is where the source said that it resumed."""
    last: SegmentRef
    """The end of its own segments, ``parent`` while it has none."""
    closed: bool = False


class Replaced(BaseModel):
    """A folder that was the table until entry ``seq`` said that Glue points elsewhere."""

    model_config = ConfigDict(frozen=True)
    folder: str
    seq: int


class TableState(BaseModel):
    """What the log says of a table."""

    model_config = ConfigDict(frozen=True)
    log_id: str
    stream: tuple[str | None, str] | None = None
    next_seq: int = 0
    columns: tuple[GlueColumn, ...] = ()
    names: dict[str, str] = {}
    applied_upto: int = -1
    runs: tuple[Run, ...] = ()
    commits: tuple[Commit, ...] = ()
    before: dict[int, SegmentRef] = {}
    """For each commit, the segment that its first one hangs on."""
    voided: frozenset[int] = frozenset()
    swap: Swap | None = None
    is_published: bool = True
    replace_seq: int = -1
    """Seq of the last replace swap, -1 if there was none."""
    published_generation: int | None = None
    superseded: tuple[str, ...] = ()
    """Folders that a swap replaces whose ``published`` entry is still to come."""
    replaced: tuple[Replaced, ...] = ()
    """Folders that were the table and may still be there, oldest first."""
    swapped_folders: frozenset[str] = frozenset()
    """Folders that were the table at some time; commits into others are those of replaces that died."""

    @property
    def folder(self) -> str | None:
        """The live folder."""
        return self.swap.folder if self.swap else None

    @property
    def last_run(self) -> Run | None:
        return self.runs[-1] if self.runs else None

    def commit(self, seq: int) -> Commit:
        found = next((commit for commit in self.commits if commit.seq == seq), None)
        if found is None:
            raise InternalError(f"The log has no commit {seq}.")
        return found

    def live_commits(self) -> tuple[Commit, ...]:
        """The commits whose rows are in the table: those of the last replace and the appends since."""
        if self.swap is None:
            return ()
        return tuple(
            commit for commit in self.commits if commit.seq not in self.voided and commit.folder == self.swap.folder
        )

    def unfinished_commits(self) -> tuple[Commit, ...]:
        """Commits into the live folder whose uploads may still have to be completed."""
        upto = self.swap.upto if self.swap else -1
        return tuple(c for c in self.live_commits() if c.seq > max(self.applied_upto, upto))

    def left_since_replace(self, digest: str | None) -> bool:
        """Whether the STATE with this hash left with the last replace or after it, from the live table."""
        if digest is None or self.swap is None or self.replace_seq < 0:
            return False
        with_the_swap: list[Segment] = []
        after: list[Segment] = []
        for commit in self.live_commits():
            (with_the_swap if commit.seq <= self.swap.upto else after).extend(commit.segments)
        return any(segment.state_hash == digest for segment in (*with_the_swap[-1:], *after))


def fold(state: TableState | None, entry: Open | Commit | Swap | Published | Void | Garbage | Close) -> TableState:
    """The state of the table after one more entry.

    Raises:
        ConfigError: the entry does not follow: another log's, or out of order.
    """
    if state is None:
        state = TableState(log_id=entry.log_id)
    if entry.log_id != state.log_id or entry.seq != state.next_seq:
        raise ConfigError("The log has an entry of another log, or one out of order.", seq=entry.seq)
    state = state.model_copy(update={"next_seq": entry.seq + 1})
    match entry:
        case Open():
            return state.model_copy(update={"runs": (*state.runs, _run_of(state, entry)), "stream": entry.stream})
        case Commit():
            return _with_commit(state, entry)
        case Swap():
            replaced: dict[str, object] = {"columns": entry.columns, "names": entry.names}
            if entry.replaces:
                replaced |= {"replace_seq": entry.seq, "published_generation": entry.generation}
            before = (state.swap.folder,) if state.swap is not None else ()
            return state.model_copy(
                update={
                    "superseded": (*state.superseded, *before),
                    "swap": entry,
                    "is_published": False,
                    "swapped_folders": state.swapped_folders | {entry.folder},
                    **replaced,
                }
            )
        case Published():
            gone = tuple(Replaced(folder=folder, seq=entry.seq) for folder in state.superseded)
            return state.model_copy(
                update={"is_published": True, "superseded": (), "replaced": (*state.replaced, *gone)}
            )
        case Garbage():
            left = tuple(replaced for replaced in state.replaced if replaced.folder not in entry.folders)
            return state.model_copy(update={"replaced": left})
        case Void():
            return state.model_copy(update={"voided": state.voided | {entry.commit_seq}})
        case Close():
            return _with_close(state, entry)


class Checkpoint(BaseModel):
    """The folded log up to an entry: a pure function of the entries, so that writers may write it twice."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    state: TableState


def checkpoint_json(state: TableState) -> bytes:
    """The state as a checkpoint object."""
    return Checkpoint(state=state).model_dump_json().encode()


def parse_checkpoint(body: bytes, *, seq: int) -> TableState | None:
    """The state after entry ``seq``; None if the object is not a checkpoint of it that this version understands.

    A checkpoint saves requests and proves nothing: without it the entries are read from the first one on.
    """
    try:
        state = Checkpoint.model_validate_json(body).state
    except ValidationError:
        return None
    return state if state.next_seq == seq + 1 else None


def fold_all(entries: Iterable[Open | Commit | Swap | Published | Void | Garbage | Close]) -> TableState | None:
    """The state after all entries; None if there are none."""
    state: TableState | None = None
    for entry in entries:
        state = fold(state, entry)
    return state


class Replayable(NamedTuple):
    """What may come again in this run: rows of ``commits``, minus those of the segments in ``kept_back``."""

    commits: tuple[Commit, ...]
    kept_back: frozenset[SegmentRef]
    known: bool


def replayable(state: TableState) -> Replayable:
    """Which stored rows the last run's source may send again.

    Known resume point: all rows stored in the target, minus those on the path from the root to the resume point.
    Unknown: the rows of the runs since the last that closed with another or a null sync id.
    """
    run = state.last_run
    if run is None:
        return Replayable((), frozenset(), known=False)
    target = state.live_commits()
    if run.known:
        return Replayable(target, frozenset(_path(state, run.parent)), known=True)
    walked = {earlier.epoch for earlier in _walk_back(state.runs[:-1], run.sync_id, full_refresh=run.full_refresh)[0]}
    return Replayable(tuple(commit for commit in target if commit.epoch in walked), frozenset(), known=False)


def _run_of(state: TableState, entry: Open) -> Run:
    found = None if entry.full_refresh else _find(state, entry.resume_state_hash)
    if found is not None and not any(_read(state, ref) for ref in _path(state, found)):
        found = None  # perhaps the end of an empty first slice: no proof that anything was read
    if found is None:
        stop = _walk_back(state.runs, entry.sync_id, full_refresh=entry.full_refresh)[1]
        parent = stop.last if stop is not None else ROOT
    else:
        parent = found
    return Run(
        epoch=entry.seq,
        sync_id=entry.sync_id,
        full_refresh=entry.full_refresh,
        started=entry.started,
        writer=entry.writer,
        resume_state_hash=entry.resume_state_hash,
        parent=parent,
        known=found is not None,
        last=parent,
    )


def _find(state: TableState, digest: str | None) -> SegmentRef | None:
    """The last segment that ends with this STATE, among those whose STATEs may have left."""
    if digest is None:
        return None
    for commit in reversed(state.commits):
        if commit.seq in state.voided or commit.folder not in state.swapped_folders:
            continue
        for index in range(len(commit.segments) - 1, -1, -1):
            if commit.segments[index].state_hash == digest:
                return SegmentRef(commit.seq, index)
    return None


def _path(state: TableState, ref: SegmentRef) -> list[SegmentRef]:
    """The segments from ``ref`` back to the root, ``ref`` included."""
    path: list[SegmentRef] = []
    while ref != ROOT:
        path.extend(SegmentRef(ref.commit, index) for index in range(ref.index, -1, -1))
        ref = state.before[ref.commit]
    return path


def _read(state: TableState, ref: SegmentRef) -> int:
    """Rows that the source had sent: a run whose rows were all replays has proved its STATEs all the same."""
    segment = state.commit(ref.commit).segments[ref.index]
    return segment.rows + segment.dropped


def _walk_back(runs: Sequence[Run], sync_id: int | None, *, full_refresh: bool) -> tuple[list[Run], Run | None]:
    """The runs that the platform may not have got to know, newest first, and the one at which the walk stops."""
    walked: list[Run] = []
    for run in reversed(runs):
        another_sync = run.sync_id is None or run.sync_id != sync_id
        if (run.closed and another_sync) or (full_refresh and run.sync_id != sync_id):
            return walked, run
        walked.append(run)
    return walked, None


def _with_commit(state: TableState, entry: Commit) -> TableState:
    run = state.last_run
    if run is None or run.epoch != entry.epoch:
        raise ConfigError("The log has a commit without its open entry.", seq=entry.seq)
    last = SegmentRef(entry.seq, len(entry.segments) - 1) if entry.segments else run.last
    applied = max(state.applied_upto, entry.applied_upto)
    changed = {} if entry.columns is None else {"columns": entry.columns, "names": entry.names or {}}
    return state.model_copy(
        update={
            "commits": (*_settled(state.commits, state.applied_upto, applied), entry),
            "before": {**state.before, entry.seq: run.last},
            "runs": (*state.runs[:-1], run.model_copy(update={"last": last})),
            "applied_upto": applied,
            **changed,
        }
    )


def _with_close(state: TableState, entry: Close) -> TableState:
    runs = tuple(run.model_copy(update={"closed": True}) if run.epoch == entry.epoch else run for run in state.runs)
    applied = max(state.applied_upto, entry.applied_upto)
    commits = _settled(state.commits, state.applied_upto, applied)
    return state.model_copy(update={"runs": runs, "commits": commits, "applied_upto": applied})


def _settled(commits: tuple[Commit, ...], before: int, applied: int) -> tuple[Commit, ...]:
    """Finished commits without their uploads: those are never looked at again, and most of the state's size."""
    first = len(commits)
    while first and commits[first - 1].seq > before:
        first -= 1
    newer = commits[first:]
    if applied == before or not newer:
        return commits
    settled = (commit.model_copy(update={"files": ()}) if commit.seq <= applied else commit for commit in newer)
    return (*commits[:first], *settled)
