"""What may be deleted, and when: folders that a swap took out of service, and what merges and dead writers left.

- A replaced folder goes ``retain_hours`` after Glue left it, by S3's clock, so that queries which began before can end;
  at most ``retain_copies`` of them stay.
- A folder of an older writer that never was the table goes at once, unless it holds commits of a refresh that a later
  run goes on with or joins.
- Staged rows that are merged, row hashes that can prove nothing any more, and tombstones that a merge wrote anew go at
  once.

The list is made first, then the ``garbage`` entry is appended, which only a writer that is not fenced can do, then the
deletes follow. Nothing of the live folder is ever in the list, nor anything whose name is not one of ours. Deletes that
were cut short are found again by the next opener's listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from destination_s3_datalake.errors import ConfigError, TransientError
from destination_s3_datalake.lake.layout import Layout, epoch_of_file, epoch_of_folder
from destination_s3_datalake.lake.log import TableState, needed_hashes
from destination_s3_datalake.lake.s3 import Bucket

MOST_KEYS = 10_000  # in one entry; the next opener goes on
MOST_IDLE_HASHES = 16  # objects with hashes that nobody needs, before it is worth to look for them


@dataclass(frozen=True, slots=True)
class Retention:
    """How long replaced folders stay."""

    hours: float
    copies: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may be deleted now: data folders, and keys of the table's private part."""

    folders: tuple[str, ...]
    keys: tuple[str, ...]


def is_due(state: TableState) -> bool:
    """Whether it is worth to list the bucket: something may lie there that nobody needs."""
    if state.has_litter or state.replaced:
        return True
    stored = {commit.replay_key for commit in state.commits if commit.replay_key is not None}
    return len(stored - needed_hashes(state)) >= MOST_IDLE_HASHES


def garbage_of(
    state: TableState,
    *,
    epoch: int,
    folders: Iterable[str],
    private: Iterable[str],
    retention: Retention,
    hours_since: Callable[[int], float],
) -> Garbage:
    """Decide. Pure but for ``hours_since``, which says how long ago an entry was written.

    Args:
        state: the log, after this writer has opened the table and finished what was left.
        epoch: this writer's; everything of it and of newer ones is left alone.
        folders: the data folders that lie in the bucket.
        private: the row hashes, staged files and tombstones there.
    """
    pending = state.pending_commits()
    waiting = {commit.folder for commit in pending}
    out = [
        folder
        for folder in sorted(folders)
        if folder != state.folder and folder not in waiting and _is_older(epoch_of_folder(folder), epoch)
    ]
    retained = [replaced for replaced in state.replaced if replaced.folder in out]
    newest = retained[-retention.copies :] if retention.copies else []
    kept = {replaced.folder for replaced in newest if hours_since(replaced.seq) < retention.hours}
    needed = {*needed_hashes(state), *(file.key for commit in pending for file in commit.files), state.tombstones}
    return Garbage(
        folders=tuple(folder for folder in out if folder not in kept),
        keys=tuple(key for key in sorted(private) if key not in needed and _is_older(epoch_of_file(key), epoch)),
    )


def find(bucket: Bucket, layout: Layout, state: TableState, *, epoch: int, retention: Retention) -> Garbage:
    """Decide by what lies in the bucket now."""

    def hours_since(seq: int) -> float:
        found = bucket.head(layout.log_entry(seq))
        return (found.now - found.modified).total_seconds() / 3600 if found is not None else 0.0

    return garbage_of(
        state,
        epoch=epoch,
        folders=bucket.folders(layout.data),
        private=bucket.keys(layout.private, after=layout.behind_log),
        retention=retention,
        hours_since=hours_since,
    )


def keys_of(bucket: Bucket, garbage: Garbage) -> list[str]:
    """Every key of it, up to as many as one entry holds."""
    keys = list(garbage.keys)
    for folder in garbage.folders:
        if len(keys) >= MOST_KEYS:
            break
        keys.extend(bucket.keys(f"{folder}/"))
    return keys[:MOST_KEYS]


def delete(bucket: Bucket, keys: list[str]) -> str | None:
    """Delete; what went wrong, None if nothing did. A sync does not fail because it could not clean."""
    try:
        bucket.delete_many(keys)
    except (ConfigError, TransientError) as problem:
        return problem.message
    return None


def _is_older(number: int | None, epoch: int) -> bool:
    return number is not None and number < epoch
