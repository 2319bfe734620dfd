"""Reading and appending the log of one table. The fencing is here: an append that finds its number taken stops.

``If-None-Match: *`` gives every number to one entry. An answer that was lost is told from another writer by the entry's
``uid``, which is new for each append.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from destination_s3_datalake.errors import ConfigError, FencedError, InternalError, TransientError
from destination_s3_datalake.lake import log
from destination_s3_datalake.lake.s3 import AlreadyThereError, Bucket

E = TypeVar("E", bound=log.EntryBase)
CHECKPOINT = "checkpoint-"
CHECKPOINT_EVERY = 100
KEPT_CHECKPOINTS = 2
REPAIR = "run: destination-s3-datalake repair --config c.json --catalog k.json"


class TakenError(Exception):
    """The number is taken by another writer's entry. Internal: an opener folds again, a writer is fenced."""


class TableLog:
    """The log below one prefix, with the folded state of what was read and appended so far."""

    def __init__(self, bucket: Bucket, prefix: str, table: str):
        self._bucket = bucket
        self._prefix = prefix
        self._table = table
        self._checkpoints: list[str] = []
        self.state: log.TableState | None = None

    def read(self) -> log.TableState | None:
        """Fold every entry that is not folded yet; the state, None for a log without entries.

        Raises:
            ConfigError: the log has a gap, or entries that this version does not understand.
        """
        if self.state is None:
            self.state = self._from_checkpoint()
        first = self.state.next_seq if self.state else 0
        after = self._key(first - 1) if first else ""
        keys = list(self._bucket.keys(f"{self._prefix}/0", after=after))
        numbers = [self._number(key) for key in keys]
        if numbers != list(range(first, first + len(numbers))):
            raise ConfigError(
                f"The log of {self._table} is not whole: entries are missing under s3://{self._bucket.name}/"
                f"{self._prefix}/. Nothing was changed. Restore them, or {REPAIR}.",
                table=self._table,
            )
        with ThreadPoolExecutor(max_workers=8) as pool:
            bodies = list(pool.map(self._bucket.get, keys))
        for seq, body in zip(numbers, bodies, strict=True):
            if body is None:
                raise ConfigError(f"Entry {seq} of the log of {self._table} vanished while it was read; {REPAIR}.")
            self.state = log.fold(self.state, log.parse_entry(body, table=self._table, seq=seq))
        return self.state

    def append(self, build: Callable[[int, str, str], E]) -> E:
        """Append the entry that ``build(seq, uid, time)`` makes.

        Raises:
            TakenError: another writer's entry stands at the next number.
        """
        seq = self.state.next_seq if self.state else 0
        entry = build(seq, uuid.uuid4().hex, datetime.now(UTC).isoformat(timespec="milliseconds"))
        try:
            self._bucket.put(self._key(seq), log.entry_json(entry), overwrite=False)
        except AlreadyThereError:
            if self._stored(seq).uid != entry.uid:
                raise TakenError(seq) from None
        self.state = log.fold(self.state, entry)  # type: ignore[arg-type]  # E is one of the entry types
        if self.state.next_seq % CHECKPOINT_EVERY == 0:
            self.write_checkpoint()
        return entry

    def write_checkpoint(self) -> None:
        """Write the folded log beside its entries, so that the next opener reads one object; keep the last two.

        A checkpoint that cannot be written, or an old one that cannot be deleted, harms nobody.
        """
        if self.state is None:
            return
        key = self._checkpoint_key(self.state.next_seq - 1)
        with suppress(ConfigError, TransientError):
            self._bucket.put(key, log.checkpoint_json(self.state))
            known = sorted({*self._checkpoints, key})
            self._checkpoints = known[-KEPT_CHECKPOINTS:]
            self._bucket.delete_many(known[:-KEPT_CHECKPOINTS])

    def require_latest(self) -> None:
        """Nobody has appended since this writer did.

        Raises:
            FencedError: a newer writer has opened the table.
        """
        if self.state is not None and self._bucket.head(self._key(self.state.next_seq)) is not None:
            raise self._fenced()

    def append_or_stop(self, build: Callable[[int, str, str], E]) -> E:
        """``append`` for a writer that has opened the table.

        Raises:
            FencedError: a newer writer has opened it since.
        """
        try:
            return self.append(build)
        except TakenError:
            raise self._fenced() from None

    def _fenced(self) -> FencedError:
        return FencedError(
            f"Another sync has opened {self._table} since this one did; this one stops without harm. "
            "Run only one connection per table at a time.",
            table=self._table,
        )

    def _from_checkpoint(self) -> log.TableState | None:
        """The newest state that can be read; None if there is none."""
        prefix = f"{self._prefix}/{CHECKPOINT}"
        self._checkpoints = list(self._bucket.keys(prefix))
        for key in reversed(self._checkpoints):
            digits = key.removeprefix(prefix).removesuffix(".json")
            body = self._bucket.get(key) if digits.isdigit() else None
            state = log.parse_checkpoint(body, seq=int(digits)) if body is not None else None
            if state is not None:
                return state
        return None

    def _checkpoint_key(self, seq: int) -> str:
        return f"{self._prefix}/{CHECKPOINT}{seq:020d}.json"

    def _stored(self, seq: int) -> log.EntryBase:
        body = self._bucket.get(self._key(seq))
        if body is None:
            raise InternalError(f"Entry {seq} of the log of {self._table} exists and cannot be read.")
        return log.parse_entry(body, table=self._table, seq=seq)

    def _key(self, seq: int) -> str:
        return f"{self._prefix}/{seq:020d}.json"

    def _number(self, key: str) -> int:
        name = key.rpartition("/")[2].removesuffix(".json")
        if len(name) != 20 or not name.isdigit():
            raise ConfigError(
                f"There is an object in the log of {self._table} that is no entry: {key}. "
                "It was written by a newer version of this destination, or by somebody else: remove it, or upgrade."
            )
        return int(name)
