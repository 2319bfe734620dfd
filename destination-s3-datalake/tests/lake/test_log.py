"""The log as a pure fold: what a table is after any sequence of entries, and what may come again."""

from __future__ import annotations

from typing import Any

import pytest
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.lake.log import (
    Close,
    Commit,
    Garbage,
    GlueColumn,
    Open,
    Published,
    Segment,
    SegmentRef,
    Swap,
    TableState,
    Void,
    checkpoint_json,
    entry_json,
    fold,
    parse_checkpoint,
    parse_entry,
    replayable,
)
from hypothesis import given
from hypothesis import strategies as st

COLUMN = GlueColumn(Name="id", Type="bigint")


class History:
    """Writes entries the way a writer does, for short tests."""

    def __init__(self) -> None:
        self.state: TableState | None = None
        self.epoch = 0
        self.entries: list[Any] = []

    def add(self, kind: Any, **fields: Any) -> int:
        seq = self.state.next_seq if self.state else 0
        if kind is Open:
            self.epoch = seq
        entry = kind(seq=seq, epoch=self.epoch, uid=f"u{seq}", log_id="L", time="t", **fields)
        self.entries.append(parse_entry(entry_json(entry), table="t", seq=seq))
        self.state = fold(self.state, self.entries[-1])
        return seq

    def open(self, *, resume: str | None = None, sync_id: int | None = None, full_refresh: bool = False) -> int:
        return self.add(Open, stream=(None, "s"), writer=f"w{self.epoch}", started="2026-01-01T00:00:00Z",
                        sync_id=sync_id, generation=None, min_generation=None, mode="append",
                        resume_state_hash=resume, full_refresh=full_refresh)  # fmt: skip

    def swap(self, folder: str, *, upto: int = -1, replaces: bool = False) -> int:
        pending = self.state.pending_commits() if self.state else ()
        includes = tuple(commit.seq for commit in pending if commit.folder == folder)
        seq = self.add(Swap, folder=folder, columns=(COLUMN,), names={"id": "id"}, generation=None, upto=upto,
                       replaces=replaces, includes=includes)  # fmt: skip
        self.add(Published, swap_seq=seq)
        return seq

    def commit(self, folder: str, *segments: tuple[int, str | None], dropped: int = 0) -> int:
        made = tuple(Segment(rows=rows, dropped=dropped, state_hash=digest) for rows, digest in segments)
        return self.add(Commit, folder=folder, generation=None, files=(), replay_key="k", columns=None, names=None,
                        segments=made, applied_upto=-1)  # fmt: skip

    def close(self) -> int:
        return self.add(Close, applied_upto=-1)

    @property
    def now(self) -> TableState:
        assert self.state is not None
        return self.state

    def may_come_again(self) -> dict[int, set[int]]:
        """Commit -> the segments whose rows may come again."""
        found = replayable(self.now, self.now.live_commits())
        out = {
            c.seq: {
                i
                for i, segment in enumerate(c.segments)
                if segment.rows and SegmentRef(c.seq, i) not in found.kept_back
            }
            for c in found.commits
        }
        return {seq: indexes for seq, indexes in out.items() if indexes}


@pytest.fixture
def history() -> History:
    made = History()
    made.open()
    made.swap("f")
    made.close()
    return made


def test_a_first_run_has_nothing_that_may_come_again(history: History):
    history.open()
    assert history.may_come_again() == {}


def test_behind_a_known_resume_point_only_what_followed_may_come_again(history: History):
    history.open()
    commit = history.commit("f", (2, "one"), (3, "two"), (4, "three"))
    history.open(resume="two")
    assert history.may_come_again() == {commit: {2}}


def test_segments_hang_on_their_runs_own_resume_point(history: History):
    """Schedule F6: the chain of segments is a tree."""
    history.open()
    first = history.commit("f", (1, "row-2"))
    history.open()  # nothing was persisted: it starts over, and row 2 is dropped as a replay
    history.commit("f", (1, "row-1"), (0, "rows-1-2"))
    history.open(resume="row-1")
    assert history.may_come_again() == {first: {0}}


def test_a_resume_point_that_is_found_twice_is_the_last(history: History):
    history.open()
    history.commit("f", (1, "a"), (1, "b"))
    history.open(resume="a")
    second = history.commit("f", (1, "b"), (1, "c"))
    history.open(resume="b")
    assert history.may_come_again()[second] == {1}


def test_a_path_without_rows_is_no_proof(history: History):
    history.open()
    commit = history.commit("f", (0, "empty"), (3, "rows"))
    history.close()
    history.open(resume="empty")
    assert not replayable(history.now, ()).known
    assert commit not in history.may_come_again()


def test_a_path_whose_rows_were_all_replays_is_a_proof(history: History):
    history.open()
    first = history.commit("f", (4, "a"), (4, "b"))  # its STATEs were lost
    history.open()
    history.commit("f", (0, "a"), (0, "b"), dropped=4)
    history.close()
    history.open(resume="a")  # of the second run, which closed; its own rows are none
    assert history.may_come_again() == {first: {0, 1}}


def test_an_unknown_resume_point_goes_back_to_the_last_run_that_closed(history: History):
    history.open()
    closed = history.commit("f", (1, "a"))
    history.close()
    history.open()
    second = history.commit("f", (1, "b"))
    history.open()
    third = history.commit("f", (1, "c"))
    history.open()
    assert set(history.may_come_again()) == {second, third}
    assert closed not in history.may_come_again()


def test_a_closed_run_of_the_same_sync_is_walked_over(history: History):
    history.open(sync_id=7)
    commit = history.commit("f", (1, "a"))
    history.close()
    history.open(sync_id=7)
    assert set(history.may_come_again()) == {commit}
    history.open(sync_id=8)
    assert set(history.may_come_again()) == set()


def test_a_full_refresh_never_knows_where_it_resumed_and_stops_at_another_sync(history: History):
    """Schedule F5: an unchanged snapshot of the next sync must not be dropped."""
    history.open(sync_id=7, full_refresh=True)
    commit = history.commit("f", (2, "end"))
    history.open(sync_id=8, resume="end", full_refresh=True)
    assert not replayable(history.now, ()).known
    assert commit not in history.may_come_again()


def test_rows_from_before_the_last_replace_never_come_again(history: History):
    history.open()
    old = history.commit("f", (2, "a"))
    history.close()
    history.open()
    new = history.commit("g", (3, "b"))
    history.swap("g", upto=new, replaces=True)
    history.open(resume="nobody-knows")
    assert old not in history.may_come_again()
    assert set(history.may_come_again()) == {new}


def test_states_of_a_replace_that_died_are_no_resume_points(history: History):
    history.open()
    live = history.commit("f", (2, "a"))
    history.close()
    history.open()
    history.commit("g", (2, "a"))  # dead: no swap follows
    history.open(resume="a")
    assert replayable(history.now, ()).known
    assert live not in history.may_come_again()


def test_hashes_of_a_voided_commit_never_count(history: History):
    history.open()
    commit = history.commit("f", (2, "a"))
    history.open()
    history.add(Void, commit_seq=commit)
    assert history.may_come_again() == {}
    assert history.now.unfinished_commits() == ()


def test_only_commits_of_the_live_folder_are_finished(history: History):
    history.open()
    history.commit("g", (1, None))
    live = history.commit("f", (1, None))
    history.open()
    assert [commit.seq for commit in history.now.unfinished_commits()] == [live]


def test_commits_below_a_later_swap_are_left_alone(history: History):
    history.open()
    commit = history.commit("g", (1, "a"))
    history.swap("g", upto=commit, replaces=True)
    assert history.now.unfinished_commits() == ()


def test_only_a_state_that_left_with_or_after_the_replace_continues_it(history: History):
    history.open()
    history.commit("f", (1, "before"))
    history.open()
    commit = history.commit("g", (1, "mid"), (1, "last"))
    history.swap("g", upto=commit, replaces=True)
    history.commit("g", (1, "after"))
    left = {digest for digest in ("before", "mid", "last", "after", None) if history.now.left_since_replace(digest)}
    assert left == {"last", "after"}


def test_an_appended_table_has_no_replace_to_continue(history: History):
    history.open()
    history.commit("f", (1, "a"))
    assert not history.now.left_since_replace("a")


def test_an_entry_of_a_newer_format_or_type_is_refused_by_its_number():
    for body in (b'{"type":"open","format":2}', b'{"type":"merge","format":1}', b"no json"):
        with pytest.raises(ConfigError, match=r"Entry 4 of the log of d\.t"):
            parse_entry(body, table="d.t", seq=4)


def test_an_entry_out_of_order_or_of_another_log_is_refused(history: History):
    entry = Close(seq=history.now.next_seq + 1, epoch=0, uid="u", log_id="L", time="t", applied_upto=0)
    with pytest.raises(ConfigError):
        fold(history.now, entry)
    with pytest.raises(ConfigError):
        fold(history.now, entry.model_copy(update={"seq": history.now.next_seq, "log_id": "other"}))


@given(st.lists(st.sampled_from(["open", "commit", "swap", "void", "close", "garbage"]), max_size=25), st.data())
def test_a_checkpoint_stands_for_the_entries_before_it(steps: list[str], data: st.DataObject):
    history = History()
    history.open()
    history.swap("f0")
    history.commit("f0", (2, "s"))
    at = data.draw(st.integers(min_value=0, max_value=len(steps)))
    restored: TableState | None = None
    for number, step in enumerate([*steps, "end"]):
        if number == at:
            restored = parse_checkpoint(checkpoint_json(history.now), seq=history.now.next_seq - 1)
            assert restored == history.now
        before = history.state
        match step:
            case "open":
                history.open(
                    resume=data.draw(st.sampled_from([None, "s", "t"])), sync_id=data.draw(st.none() | st.just(7))
                )
            case "commit":
                folder = history.now.folder or "f0"
                history.commit(folder, (data.draw(st.integers(0, 3)), "s"), (1, "t"), dropped=number % 2)
            case "swap":
                history.swap(f"f{number + 1}", replaces=True)
            case "void":
                history.add(Void, commit_seq=history.now.commits[-1].seq)
            case "close":
                history.close()
            case "garbage":
                history.add(Garbage, folders=("f0",), keys=("f0/x",))
        if restored is not None and before is not history.state:
            for entry in history.entries[restored.next_seq :]:
                restored = fold(restored, entry)
    assert restored == history.now


def test_what_is_no_checkpoint_of_that_entry_is_ignored(history: History):
    body = checkpoint_json(history.now)
    last = history.now.next_seq - 1
    assert parse_checkpoint(body, seq=last) == history.now
    assert parse_checkpoint(body, seq=last + 1) is None
    assert parse_checkpoint(body[:-5], seq=last) is None
    assert parse_checkpoint(body.replace(b'"format":1', b'"format":2'), seq=last) is None
