"""The log of a table: what an entry says, and the state of a table as a pure fold over its entries.

The log is the only truth about a table. Everything that readers see (completed uploads, the Glue table) is a repeatable
consequence of an entry, so that a writer that dies anywhere leaves work that the next one finishes. Entries are
immutable objects, numbered without a gap from 0, each PUT with ``If-None-Match: *`` and never deleted.

Pure: no I/O here. ``table_log.py`` reads and appends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, assert_never

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.errors import ConfigError, InternalError
from destination_s3_datalake.lake.layout import epoch_of_folder
from destination_s3_datalake.records.partitions import PartitionKey, Values
from destination_s3_datalake.records.schema import GlueColumn

FORMAT = 1
KEPT_RUNS = 100  # a STATE that left before them is a resume point that is not known any more


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
    """Where the files are: the live folder, one that a swap will publish, or ``stage``."""
    is_staged: bool = False
    """Whether the rows wait in ``stage`` for a merge by key."""
    file_format: FormatType = "parquet"
    partitions: tuple[Values, ...] = ()
    """Partitions that this commit is the first of in its folder."""
    generation: int | None
    files: tuple[DataFile, ...]
    segments: tuple[Segment, ...]
    replay_key: str | None
    columns: tuple[GlueColumn, ...] | None
    """Our columns in this folder from here on, None if they did not change."""
    names: dict[str, str] | None
    applied_upto: int

    @property
    def rows(self) -> int:
        """Rows that are stored."""
        return sum(segment.rows for segment in self.segments)


class StoredFile(BaseModel):
    """A finished object of a folder that a rewrite made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    bytes: int


class Swap(EntryBase):
    """A complete new folder becomes the table."""

    type: Literal["swap"] = "swap"
    folder: str
    columns: tuple[GlueColumn, ...]
    names: dict[str, str]
    file_format: FormatType = "parquet"
    partitioning: tuple[PartitionKey, ...] = ()
    """Keys of the table; its files lie in one folder per partition below ``folder``."""
    partitions: tuple[Values, ...] = ()
    """Every partition of the folder."""
    generation: int | None
    upto: int
    """Seq of the last commit before this entry: none up to there is ever completed again. -1 for none."""
    replaces: bool
    """Whether the rows before are gone (a replace), rather than carried over (a rewrite)."""
    includes: tuple[int, ...] = ()
    """Commits whose rows come into the table with this folder; those in it before stay unless ``replaces``."""
    files: tuple[StoredFile, ...] | None = None
    """What a rewrite put there; None if the folder holds the files of the commits it includes."""
    rows: int | None = None
    """Rows of ``files``; None if they were not counted."""
    unique_by: tuple[str, ...] | None = None
    """Fields by which every row of the folder is the only one; None if it may hold several."""
    tombstones: str | None = None
    """Object with the keys of deleted rows."""


class Adopt(EntryBase):
    """A table that somebody else made is ours from here on, where it is; its files stay and are never garbage."""

    type: Literal["adopt"] = "adopt"
    folder: str
    columns: tuple[GlueColumn, ...]
    names: dict[str, str]
    files: tuple[StoredFile, ...]
    rows: int | None = None
    file_format: Literal["parquet", "jsonl"] = "parquet"
    partitioning: tuple[PartitionKey, ...] = ()
    partitions: tuple[Values, ...] = ()
    replaces: Literal[False] = False
    generation: None = None
    upto: int = -1
    tombstones: None = None


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
    is_clean: bool = False
    """Whether this writer looked for what nobody needs, deleted all of it, and left nothing itself."""


AnyEntry = Open | Commit | Swap | Adopt | Published | Void | Garbage | Close
_ENTRY: TypeAdapter[AnyEntry] = TypeAdapter(Annotated[AnyEntry, Field(discriminator="type")])


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a log entry; ``log-entry.schema.json`` is made from it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ENTRY.json_schema()}


def parse_entry(body: bytes, *, table: str, seq: int) -> AnyEntry:
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
    """What the log says of a table.

    A commit's rows are in exactly one place: in the table (``live``), gone with a table that a replace took away or
    with a replace that died (``dead``), never stored (``voided``), or waiting to be published (``pending``).
    """

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
    live: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    voided: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()
    """Commits of replaces that died, whose STATEs never left."""
    swap: Swap | Adopt | None = None
    is_published: bool = True
    replace_seq: int = -1
    """Seq of the last replace swap, -1 if there was none."""
    replace_upto: int = -1
    """Its last commit."""
    published_generation: int | None = None
    superseded: tuple[str, ...] = ()
    """Folders that a swap replaces whose ``published`` entry is still to come."""
    replaced: tuple[Replaced, ...] = ()
    """Folders that were the table and may still be there, oldest first."""
    rows: int | None = 0
    """Rows of the table; None if nobody counted them."""
    files: int = 0
    bytes: int = 0
    """Data files of the table and their size."""
    partitions: tuple[Values, ...] = ()
    """Partitions of the table, sorted."""
    unique_by: tuple[str, ...] | None = None
    """Fields by which every row of the table is the only one; None if it may hold several."""
    has_litter: bool = False
    """Whether something may lie in the bucket that nobody needs: a writer died, or rows were merged."""

    @property
    def folder(self) -> str | None:
        """The live folder."""
        return self.swap.folder if self.swap else None

    @property
    def file_format(self) -> FormatType | None:
        """Format of the live folder's files; None if there is no folder yet."""
        return self.swap.file_format if self.swap else None

    @property
    def partitioning(self) -> tuple[PartitionKey, ...]:
        """Keys of the table; none if it is not partitioned."""
        return self.swap.partitioning if self.swap else ()

    @property
    def tombstones(self) -> str | None:
        """The object with the keys of deleted rows."""
        return self.swap.tombstones if self.swap else None

    @property
    def last_run(self) -> Run | None:
        return self.runs[-1] if self.runs else None

    def commit(self, seq: int) -> Commit:
        found = next((commit for commit in self.commits if commit.seq == seq), None)
        if found is None:
            raise InternalError(f"The log has no commit {seq}.")
        return found

    def live_commits(self) -> tuple[Commit, ...]:
        """The commits whose rows are in the table: those since the last replace."""
        return tuple(commit for commit in self.commits if commit.seq in self.live)

    def pending_commits(self) -> tuple[Commit, ...]:
        """The commits whose rows wait to be published: staged ones, and those of replaces in progress."""
        settled = self.live | self.dead | self.voided
        return tuple(commit for commit in self.commits if commit.seq not in settled)

    def commits_of(self, generation: int | None) -> tuple[Commit, ...]:
        """The pending commits of a refresh that is not published yet."""
        if generation is None:
            return ()
        return tuple(commit for commit in self.pending_commits() if commit.generation == generation)

    def unfinished_commits(self) -> tuple[Commit, ...]:
        """Commits whose uploads may still have to be completed."""
        finished = max(self.applied_upto, self.swap.upto if self.swap else -1)
        done = self.voided | self.dead
        return tuple(commit for commit in self.commits if commit.seq > finished and commit.seq not in done)

    def knows(self, digest: str) -> bool:
        """Whether a STATE with this hash has left from here."""
        return _find(self, digest) is not None

    def left_since_replace(self, digest: str | None) -> bool:
        """Whether the STATE with this hash left with the last replace or after it, from the live table."""
        if digest is None or self.replace_seq < 0:
            return False
        with_the_swap: list[Segment] = []
        after: list[Segment] = []
        for commit in self.live_commits():
            (with_the_swap if commit.seq <= self.replace_upto else after).extend(commit.segments)
        return any(segment.state_hash == digest for segment in (*with_the_swap[-1:], *after))


def columns_of(commits: Iterable[Commit], first: Iterable[GlueColumn] = ()) -> tuple[GlueColumn, ...]:
    """The columns of these commits' files together, behind those that are there ``first``. The first type wins."""
    found = {column.Name: column for column in first}
    for commit in commits:
        for column in commit.columns or ():
            found.setdefault(column.Name, column)
    return tuple(found.values())


def columns_in(state: TableState, commit: Commit) -> tuple[GlueColumn, ...]:
    """The columns of the files of one commit: a commit that says none has those of the one before it there."""
    found = state.columns
    for earlier in state.commits:
        if earlier.folder == commit.folder and earlier.epoch == commit.epoch and earlier.seq <= commit.seq:
            found = earlier.columns or found
    return found


def names_of(commits: Iterable[Commit], first: Mapping[str, str]) -> dict[str, str]:
    """Field -> column of these commits together, behind those that are there ``first``."""
    found = dict(first)
    for commit in commits:
        found = {**(commit.names or {}), **found}
    return found


def fold(state: TableState | None, entry: AnyEntry) -> TableState:
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
            return _with_open(state, entry)
        case Commit():
            return _with_commit(state, entry)
        case Swap():
            return _with_swap(state, entry)
        case Adopt():
            return state.model_copy(
                update={
                    "swap": entry,
                    "is_published": False,
                    "columns": entry.columns,
                    "names": entry.names,
                    "rows": entry.rows,
                    "partitions": entry.partitions,
                    "files": len(entry.files),
                    "bytes": sum(file.bytes for file in entry.files),
                }
            )
        case Published():
            ours = [folder for folder in state.superseded if epoch_of_folder(folder) is not None]  # not an adopted one
            gone = tuple(Replaced(folder=folder, seq=entry.seq) for folder in ours)
            return state.model_copy(
                update={"is_published": True, "superseded": (), "replaced": (*state.replaced, *gone)}
            )
        case Garbage():
            return _with_garbage(state, entry)
        case Void():
            return _with_void(state, entry)
        case Close():
            return _with_close(state, entry)
        case other:
            assert_never(other)


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


def fold_all(entries: Iterable[AnyEntry]) -> TableState | None:
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


def replayable(state: TableState, target: Sequence[Commit]) -> Replayable:
    """Which rows of ``target`` (the live commits, or those of an unpublished generation) may come again in this run.

    Known resume point: all rows stored in the target, minus those on the path from the root to the resume point.
    Unknown: the rows of the runs since the last that closed with another or a null sync id.
    """
    run = state.last_run
    if run is None:
        return Replayable((), frozenset(), known=False)
    if run.known:
        return Replayable(tuple(target), frozenset(_path(state, run.parent)), known=True)
    walked = {earlier.epoch for earlier in _walk_back(state.runs[:-1], run.sync_id, full_refresh=run.full_refresh)[0]}
    return Replayable(tuple(commit for commit in target if commit.epoch in walked), frozenset(), known=False)


def needed_hashes(state: TableState) -> frozenset[str]:
    """The replay objects whose rows may still come again, in this run or in a retry of it.

    Hashes go of commits wholly on the path to a proved resume point, of runs at which the walk of the unknown case
    stopped or behind them, and of rows that are no longer there.
    """
    here = (*state.live_commits(), *state.pending_commits())
    found = replayable(state, here)
    mine = state.last_run.epoch if state.last_run else -1
    needed = set()
    for commit in (*found.commits, *(commit for commit in here if commit.epoch == mine)):
        segments = {SegmentRef(commit.seq, index) for index, s in enumerate(commit.segments) if s.rows}
        if commit.replay_key is not None and not segments <= found.kept_back:
            needed.add(commit.replay_key)
    return frozenset(needed)


def _with_open(state: TableState, entry: Open) -> TableState:
    died = state.last_run is not None and not state.last_run.closed
    # The commits of a replace without a number belong to its run alone, which is over: their STATEs never left.
    over = {commit.seq for commit in state.pending_commits() if not commit.is_staged and commit.generation is None}
    state = state.model_copy(
        update={
            "stream": entry.stream,
            "dead": state.dead | over,
            "held": state.held | over,
            "has_litter": state.has_litter or died,
        }
    )
    return state.model_copy(update={"runs": (*state.runs, _run_of(state, entry))})


def _with_swap(state: TableState, entry: Swap) -> TableState:
    includes = frozenset(entry.includes)
    before = (state.swap.folder,) if state.swap is not None else ()
    came = [commit for commit in state.commits if commit.seq in includes]
    size: dict[str, object]
    if entry.files is not None:
        size = {"rows": entry.rows, "files": len(entry.files), "bytes": sum(file.bytes for file in entry.files)}
    else:
        size = {
            "rows": sum(commit.rows for commit in came),
            "files": sum(len(commit.files) for commit in came),
            "bytes": sum(file.bytes for commit in came for file in commit.files),
        }
    live, dead = state.live | includes, state.dead
    replaced: dict[str, object] = {}
    if entry.replaces:
        replaced = {"replace_seq": entry.seq, "replace_upto": entry.upto, "published_generation": entry.generation}
        live, dead = includes, frozenset(commit.seq for commit in state.commits) - includes - state.voided
    changed = state.model_copy(
        update={
            "superseded": (*state.superseded, *before),
            "swap": entry,
            "is_published": False,
            "columns": entry.columns,
            "names": entry.names,
            "partitions": tuple(sorted(entry.partitions)),
            "live": live,
            "dead": dead,
            "unique_by": entry.unique_by,
            "has_litter": state.has_litter or any(commit.is_staged for commit in came) or dead != state.dead,
            **replaced,
            **size,
        }
    )
    return _settled(changed)


def _with_garbage(state: TableState, entry: Garbage) -> TableState:
    gone = frozenset(entry.keys)
    commits = tuple(
        commit.model_copy(update={"replay_key": None}) if commit.replay_key in gone else commit
        for commit in state.commits
    )
    left = tuple(replaced for replaced in state.replaced if replaced.folder not in entry.folders)
    return state.model_copy(update={"replaced": left, "commits": commits})


def _with_void(state: TableState, entry: Void) -> TableState:
    lost = state.commit(entry.commit_seq)
    update: dict[str, object] = {"voided": state.voided | {lost.seq}, "live": state.live - {lost.seq}}
    if lost.seq in state.live:
        update |= {
            "rows": None if state.rows is None else state.rows - lost.rows,
            "files": state.files - len(lost.files),
            "bytes": state.bytes - sum(file.bytes for file in lost.files),
            "partitions": tuple(sorted({*state.partitions} - {*lost.partitions})),
        }
    return state.model_copy(update=update)


def _run_of(state: TableState, entry: Open) -> Run:
    found = None if entry.full_refresh else _find(state, entry.resume_state_hash)
    if found is not None and not _has_read(state, found):
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
        if commit.seq in state.voided or commit.seq in state.held:
            continue
        for index in range(len(commit.segments) - 1, -1, -1):
            if commit.segments[index].state_hash == digest:
                return SegmentRef(commit.seq, index)
    return None


def _path(state: TableState, ref: SegmentRef) -> Iterator[SegmentRef]:
    """The segments from ``ref`` back to the root, or to where older commits are forgotten, ``ref`` included."""
    while ref.commit in state.before:
        yield from (SegmentRef(ref.commit, index) for index in range(ref.index, -1, -1))
        ref = state.before[ref.commit]


def _has_read(state: TableState, ref: SegmentRef) -> bool:
    """Whether the source had sent any row up to ``ref``: one whose rows were all replays has proved its STATEs too."""
    commits = {commit.seq: commit for commit in state.commits}
    last = ref
    for last in _path(state, ref):
        segment = commits[last.commit].segments[last.index]
        if segment.rows or segment.dropped:
            return True
    return state.before.get(last.commit, ROOT) != ROOT  # older commits are forgotten: some of them had rows


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
    changed: dict[str, object] = {}
    if entry.folder == state.folder:
        changed = {
            "live": state.live | {entry.seq},
            "rows": None if state.rows is None else state.rows + entry.rows,
            "files": state.files + len(entry.files),
            "bytes": state.bytes + sum(file.bytes for file in entry.files),
            "partitions": tuple(sorted({*state.partitions, *entry.partitions})),
            "unique_by": None if entry.rows else state.unique_by,
        }
        if entry.columns is not None:
            changed |= {"columns": entry.columns, "names": entry.names or {}}
    return state.model_copy(
        update={
            "commits": (*_without_uploads(state, since=state.applied_upto, upto=applied), entry),
            "before": {**state.before, entry.seq: run.last},
            "runs": (*state.runs[:-1], run.model_copy(update={"last": last})),
            "applied_upto": applied,
            **changed,
        }
    )


def _with_close(state: TableState, entry: Close) -> TableState:
    runs = tuple(run.model_copy(update={"closed": True}) if run.epoch == entry.epoch else run for run in state.runs)
    applied = max(state.applied_upto, entry.applied_upto)
    litter = state.has_litter and not entry.is_clean
    closed = state.model_copy(update={"runs": runs, "applied_upto": applied, "has_litter": litter})
    return _forgetful(_settled(closed))


def _settled(state: TableState) -> TableState:
    return state.model_copy(update={"commits": tuple(_without_uploads(state, since=-1, upto=state.applied_upto))})


def _without_uploads(state: TableState, *, since: int, upto: int) -> Iterable[Commit]:
    """The commits, without the uploads of those that are finished and in no need of their files any more."""
    if since == upto:
        return state.commits
    first = len(state.commits)
    while first and state.commits[first - 1].seq > since:
        first -= 1
    over = state.live | state.dead | state.voided
    newer = (
        commit.model_copy(update={"files": ()})
        if commit.files and commit.seq <= upto and commit.seq in over
        else commit
        for commit in state.commits[first:]
    )
    return (*state.commits[:first], *newer)


def _forgetful(state: TableState) -> TableState:
    """The state without runs that no retry can reach any more, so that its size does not grow with the table's age."""
    if len(state.runs) <= KEPT_RUNS:
        return state
    runs = state.runs[-KEPT_RUNS:]
    pending = {commit.seq for commit in state.pending_commits()}
    kept = tuple(commit for commit in state.commits if commit.epoch >= runs[0].epoch or commit.seq in pending)
    numbers = frozenset(commit.seq for commit in kept)
    return state.model_copy(
        update={
            "runs": runs,
            "commits": kept,
            "before": {seq: ref for seq, ref in state.before.items() if seq in numbers},
            "live": state.live & numbers,
            "dead": state.dead & numbers,
            "voided": state.voided & numbers,
            "held": state.held & numbers,
        }
    )
