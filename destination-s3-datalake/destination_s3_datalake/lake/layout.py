"""Where everything of a table lies in the bucket. Pure.

Nothing private to us is below a table's Location, and no folder that readers list begins with ``_`` or ``.``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one table. ``database_folder`` and ``table_folder`` are names that readers do not hide."""

    bucket: str
    prefix: str
    database_folder: str
    table_folder: str

    @property
    def data(self) -> str:
        """Prefix of every folder of the table, with its slash."""
        return f"{self.prefix}/{self.database_folder}/{self.table_folder}/"

    @property
    def log(self) -> str:
        """Prefix of the log, without a slash."""
        return f"{self._private}/log"

    def folder(self, epoch: int, n: int, rand8: str) -> str:
        """Key prefix of the n-th folder that a writer began, without a slash."""
        return f"{self.data}{epoch:010d}-{n}-{rand8}"

    def data_file(self, folder: str, seq: int, epoch: int, rand8: str, suffix: str) -> str:
        return f"{folder}/{seq:010d}-{epoch:010d}-{rand8}{suffix}"

    def replay(self, seq: int, epoch: int, rand8: str) -> str:
        return f"{self._private}/replay/{seq:010d}-{epoch:010d}-{rand8}"

    def log_entry(self, seq: int) -> str:
        return f"{self.log}/{seq:020d}.json"

    @property
    def stage(self) -> str:
        """The folder of rows that wait for a merge, without a slash."""
        return f"{self._private}/stage"

    def tombstones(self, seq: int, epoch: int, rand8: str) -> str:
        return f"{self._private}/tombstones/{seq:010d}-{epoch:010d}-{rand8}.parquet"

    @property
    def private(self) -> str:
        """Prefix of everything of the table that no reader sees, with its slash."""
        return f"{self._private}/"

    @property
    def behind_log(self) -> str:
        """A key behind every log entry and before everything else below ``private``: replay, stage, tombstones."""
        return f"{self._private}/log0"

    @property
    def root(self) -> str:
        """The location of every folder of the table."""
        return f"s3://{self.bucket}/{self.data}"

    def location(self, folder: str) -> str:
        """The folder as a Glue Location."""
        return f"s3://{self.bucket}/{folder}/"

    @property
    def _private(self) -> str:
        return f"{self.prefix}/_airbyte/{self.database_folder}/{self.table_folder}"


def suffix_of(name: str) -> str:
    """The ending of a data file's name or key, such as ``.csv.gz``."""
    dot = name.rpartition("/")[2].find(".")
    return name.rpartition("/")[2][dot:] if dot >= 0 else ""


def epoch_of_file(key: str) -> int | None:
    """The epoch in a data file's name; None if it is not one of ours."""
    parts = key.rpartition("/")[2].split("-")
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[1])


def epoch_of_folder(folder: str) -> int | None:
    """The epoch in a data folder's name; None if it is not one of ours."""
    parts = folder.rpartition("/")[2].split("-")
    if len(parts) != 3 or len(parts[0]) != 10 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0])
