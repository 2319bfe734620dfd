"""What may be deleted: by rule, for any bucket."""

from __future__ import annotations

from destination_s3_datalake.lake.garbage import Garbage, Retention, garbage_of
from destination_s3_datalake.lake.log import ROOT, Commit, Replaced, Run, Segment, Swap, TableState

EPOCH = 50


def folder(epoch: int, n: int = 1) -> str:
    return f"lake/db/t/{epoch:010d}-{n}-abcdef01"


def replay(epoch: int) -> str:
    return f"lake/_airbyte/db/t/replay/{1:010d}-{epoch:010d}-abcdef01"


def commit(seq: int, into: str, key: str) -> Commit:
    return Commit(seq=seq, epoch=seq, uid="u", log_id="L", time="t", folder=into, generation=None, files=(),
                  segments=(Segment(rows=1, state_hash="a"),), replay_key=key, columns=None, names=None,
                  applied_upto=-1)  # fmt: skip


def state(
    *, replaced: tuple[Replaced, ...] = (), commits: tuple[Commit, ...] = (), live: frozenset[int] = frozenset()
) -> TableState:
    swap = Swap(seq=40, epoch=40, uid="u", log_id="L", time="t", folder=folder(40), columns=(), names={},
                generation=None, upto=39, replaces=True)  # fmt: skip
    runs = tuple(
        Run(epoch=number, sync_id=None, full_refresh=False, started="", writer="", resume_state_hash=None,
            parent=ROOT, known=False, last=ROOT, closed=False)
        for number in (20, 45)
    )  # fmt: skip
    dead = frozenset(commit.seq for commit in commits) - live
    return TableState(log_id="L", swap=swap, replaced=replaced, commits=commits, live=live, dead=dead, runs=runs)


def decide(found: TableState, folders: list[str], private: list[str] = [], *, hours=24.0, copies=3, age=1.0) -> Garbage:  # noqa: B006
    return garbage_of(
        found,
        epoch=EPOCH,
        folders=folders,
        private=private,
        retention=Retention(hours=hours, copies=copies),
        hours_since=lambda seq: age,
    )


def test_the_live_folder_and_everything_of_newer_writers_stay():
    assert decide(state(), [folder(40), folder(EPOCH), folder(60)], [replay(EPOCH)]) == Garbage((), ())


def test_folders_that_never_were_the_table_go_at_once():
    assert decide(state(), [folder(30, 2), folder(40)]).folders == (folder(30, 2),)


def test_names_that_are_not_ours_stay():
    strange = ["lake/db/t/backup", "lake/db/t/2024-01-01", "lake/db/t/0000000001-x-abc"]
    assert decide(state(), strange, ["lake/_airbyte/db/t/replay/notes.txt"]) == Garbage((), ())


def test_replaced_folders_stay_for_their_time_and_as_copies():
    replaced = tuple(Replaced(folder=folder(number), seq=number) for number in (10, 20, 30, 35))
    found, folders = state(replaced=replaced), [folder(number) for number in (10, 20, 30, 35, 40)]
    assert decide(found, folders, copies=3).folders == (folder(10),)
    assert decide(found, folders, copies=1).folders == (folder(10), folder(20), folder(30))
    assert decide(found, folders, age=25).folders == tuple(folders[:4])
    assert decide(found, folders, copies=0).folders == tuple(folders[:4])
    assert decide(found, folders, hours=0, age=0).folders == tuple(folders[:4])


def test_hashes_of_rows_that_are_gone_go_and_those_of_the_table_stay():
    live, old, lost = replay(45), replay(20), replay(30)
    found = state(commits=(commit(20, folder(10), old), commit(45, folder(40), live)), live=frozenset({45}))
    assert decide(found, [], [live, old, lost]).keys == (old, lost)
