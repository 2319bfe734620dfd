"""Raw record lines on local disk, one growing file per stream, within one disk budget over all streams.

Files are named by counters, never by streams. The folder is this process's alone and is removed at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from destination_s3_datalake.errors import ConfigError, TransientError

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
BUFFER_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class SpooledLines:
    """A closed spool file: ``rows`` lines of one stream, each with its newline; no line is longer than ``longest``."""

    path: Path
    rows: int
    bytes: int
    longest: int
    places: tuple[tuple[int, int], ...]
    """(row, line of the input) where a run of lines begins that were taken together."""

    def line_of(self, row: int) -> int:
        """Line number in the input of a row that was taken in a run."""
        first, line = max(place for place in self.places if place[0] <= row)
        return line + row - first

    def cut(self, *, rows: int, size: int) -> SpooledLines:
        """Keep only the first ``rows`` lines, which are ``size`` bytes."""
        os.truncate(self.path, size)
        return replace(self, rows=rows, bytes=size)


class Spool:
    """The folder, and the sum of all files in it. Use as a context manager."""

    def __init__(self, directory: str | None, *, limit_bytes: int):
        self._root = choose_directory(directory)
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._files = 0
        self.folder = Path()
        self.open_files: set[BinaryIO] = set()

    def __enter__(self) -> Spool:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="destination-s3-datalake-", dir=self._root))
        except OSError as cause:
            raise ConfigError(
                f"The spool directory cannot be written ({cause.strerror}): set spool_directory to a folder that can."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.open_files:
            with suppress(OSError):  # a full disk refuses the last buffer, which nobody needs any more
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_full(self) -> bool:
        return self.used_bytes >= self.limit_bytes

    def new_path(self, suffix: str) -> Path:
        """A path that no other file of this process has."""
        self._files += 1
        return self.folder / f"{self._files:08d}{suffix}"

    def removed(self, lines: SpooledLines) -> None:
        """Delete a closed spool file and give its bytes back to the budget."""
        lines.path.unlink(missing_ok=True)
        self.used_bytes -= lines.bytes


class StreamSpool:
    """The lines of one stream that are in no data file yet."""

    def __init__(self, spool: Spool):
        self._spool = spool
        self._file: BinaryIO | None = None
        self._path = Path()
        self._places: list[tuple[int, int]] = []
        self._longest = 0
        self.rows = 0
        self.bytes = 0

    def append(self, raw: bytes, *, rows: int = 1, line: int | None = None) -> None:
        """Add lines, each with its newline.

        Args:
            line: number of the first of them in the input, for lines that nobody has looked at.

        Raises:
            TransientError: the disk is full.
        """
        if self._file is None:
            self._path = self._spool.new_path(".jsonl")
            self._file = self._path.open("wb", buffering=BUFFER_BYTES)
            self._spool.open_files.add(self._file)
        try:
            self._file.write(raw)
        except OSError as cause:
            raise _disk_error(cause) from None
        if line is not None and not self._goes_on(line):
            self._places.append((self.rows, line))
        self._longest = max(self._longest, len(raw))
        self.rows += rows
        self.bytes += len(raw)
        self._spool.used_bytes += len(raw)

    def take(self, *, rows: int, size: int) -> SpooledLines | None:
        """Close the file at its first ``rows`` lines, which are ``size`` bytes; the rest begins a new one."""
        if not rows or self._file is None:
            return None
        try:
            self._file.close()
            self._spool.open_files.discard(self._file)
            self._file = None
            taken = SpooledLines(self._path, rows, size, self._longest, tuple(self._places))
            rest_rows, rest_bytes = self.rows - rows, self.bytes - size
            self.rows = self.bytes = 0
            if rest_rows:
                self._keep_rest(taken, rest_rows, rest_bytes)
            else:
                self._places, self._longest = [], 0
        except OSError as cause:
            raise _disk_error(cause) from None
        return taken

    def _keep_rest(self, taken: SpooledLines, rows: int, size: int) -> None:
        path = self._spool.new_path(".jsonl")
        with taken.path.open("rb") as old:
            old.seek(taken.bytes)
            new = path.open("wb", buffering=BUFFER_BYTES)
            self._spool.open_files.add(new)
            shutil.copyfileobj(old, new, 1 << 20)
        os.truncate(taken.path, taken.bytes)
        self._file, self._path = new, path
        self.rows, self.bytes = rows, size
        # A run that was cut goes on in the new file, at its first row or before it.
        self._places = [
            (row - taken.rows, line)
            for row, line in taken.places
            if row >= taken.rows or (row, line) == taken.places[-1]
        ]

    def _goes_on(self, line: int) -> bool:
        """Whether these lines follow the last run in the input as they do here."""
        if not self._places:
            return False
        row, first = self._places[-1]
        return line - first == self.rows - row


def choose_directory(configured: str | None) -> Path:
    """The spool's parent folder: the configured one, else the temporary directory, else /tmp, else /var/tmp.

    Raises:
        ConfigError: it does not exist, or is in memory: a spool there would defeat the memory limit.
    """
    if configured is not None:
        path = Path(configured)
        if not path.is_dir():
            raise ConfigError("spool_directory is not a folder: create it, or mount a volume there.")
        if file_system_of(path) in MEMORY_FILE_SYSTEMS:
            raise ConfigError(
                f"spool_directory {path} is in memory (tmpfs): mount a volume there, or name a folder on a disk."
            )
        return path
    # Not tempfile's own choice: it raises where nothing can be written. mkdtemp makes a private folder in it.
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for path in map(Path, [*filter(None, named), "/tmp", "/var/tmp"]):  # noqa: S108
        if path.is_dir() and os.access(path, os.W_OK) and file_system_of(path) not in MEMORY_FILE_SYSTEMS:
            return path
    raise ConfigError(
        "Neither /tmp nor /var/tmp is a writable folder on a disk: mount a volume at /tmp, or set spool_directory to a "
        "folder on a disk."
    )


def file_system_of(path: Path) -> str:
    """Type of the file system that holds ``path``, such as ext4; empty where the system does not tell (no /proc)."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    resolved = path.resolve()
    best, kind = -1, ""
    for mount in mounts.splitlines():
        _, point, mount_kind, *_ = mount.split(" ")
        place = Path(point.replace("\\040", " "))
        if (resolved == place or place in resolved.parents) and len(place.parts) >= best:
            best, kind = len(place.parts), mount_kind
    return kind


def _disk_error(cause: OSError) -> TransientError:
    return TransientError(
        f"The spool could not be written ({cause.strerror}): give spool_directory more space, or lower spool_limit_mb. "
        "Nothing that was acknowledged is lost."
    )
