"""What may be deleted, and when: folders that a replace took out of service, and what dead writers left.

- A replaced folder goes ``retain_hours`` after Glue left it, by S3's clock, so that queries which began before can end;
  at most ``retain_copies`` of them stay.
- A folder of an older writer that never was the table goes at once: its STATEs never left.
- Row hashes of rows that are no longer in the table, or of commits that never happened, go at once.

The list is made first, then the ``garbage`` entry is appended, which only a writer that is not fenced can do, then the
deletes follow. Nothing of the live folder is ever in the list, nor anything whose name is not one of ours. Deletes that
were cut short are found again by the next opener's listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from destination_s3_datalake.errors import ConfigError, TransientError
from destination_s3_datalake.lake.layout import Layout, epoch_of_file, epoch_of_folder
from destination_s3_datalake.lake.log import TableState
from destination_s3_datalake.lake.s3 import Bucket

MOST_KEYS = 10_000  # in one entry; the next opener goes on


@dataclass(frozen=True, slots=True)
class Retention:
    """How long replaced folders stay."""

    hours: float
    copies: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may be deleted now."""

    folders: tuple[str, ...]
    replays: tuple[str, ...]


def garbage_of(
    state: TableState,
    *,
    epoch: int,
    folders: Iterable[str],
    replays: Iterable[str],
    retention: Retention,
    hours_since: Callable[[int], float],
) -> Garbage:
    """Decide. Pure but for ``hours_since``, which says how long ago an entry was written.

    Args:
        state: the log, after this writer has opened the table and finished what was left.
        epoch: this writer's; everything of it and of newer ones is left alone.
        folders, replays: what lies in the bucket.
    """
    out = [
        folder
        for folder in sorted(folders)
        if folder != state.folder and (number := epoch_of_folder(folder)) is not None and number < epoch
    ]
    retained = [replaced for replaced in state.replaced if replaced.folder in out]
    newest = retained[-retention.copies :] if retention.copies else []
    kept = {replaced.folder for replaced in newest if hours_since(replaced.seq) < retention.hours}
    needed = {commit.replay_key for commit in state.live_commits()}
    return Garbage(
        folders=tuple(folder for folder in out if folder not in kept),
        replays=tuple(
            key
            for key in sorted(replays)
            if key not in needed and (number := epoch_of_file(key)) is not None and number < epoch
        ),
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
        replays=bucket.keys(layout.replays),
        retention=retention,
        hours_since=hours_since,
    )


def keys_of(bucket: Bucket, garbage: Garbage) -> list[str]:
    """Every key of it, up to as many as one entry holds."""
    keys = list(garbage.replays)
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
