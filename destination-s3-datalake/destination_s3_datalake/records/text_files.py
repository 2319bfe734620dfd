"""Closed JSONL and CSV files -> fewer ones, or the same rows with their fields in other places. Line by line."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELD = re.compile(rb"(?:[^\\,]|\\.)*")
BUFFER_BYTES = 1 << 20


def join(files: Sequence[Path], target: Path, *, suffix: str, target_bytes: int) -> None:
    """Write the lines of ``files`` into new files in ``target``, each full at ``target_bytes`` on disk."""
    waiting = list(files)
    number = 0
    while waiting:
        path = target / f"{number:08d}{suffix}"
        with _writing(path) as output:
            while waiting and (not path.exists() or path.stat().st_size < target_bytes):
                with _reading(waiting.pop(0)) as source:
                    shutil.copyfileobj(source, output, BUFFER_BYTES)
        number += 1


def with_places(source: Path, target: Path, places: Sequence[int | None]) -> Path:
    """Write a CSV file whose field ``n`` is field ``places[n]`` of ``source``, NULL where that is None or not there."""
    with _reading(source) as lines, _writing(target) as output:
        for line in lines:
            fields = _fields(line.rstrip(b"\n"))
            moved = [fields[place] if place is not None and place < len(fields) else rb"\N" for place in places]
            output.write(b",".join(moved) + b"\n")
    return target


def _fields(line: bytes) -> list[bytes]:
    fields, start = [], 0
    while True:
        found = FIELD.match(line, start)
        assert found is not None  # it matches the empty text too
        fields.append(found.group())
        start = found.end() + 1
        if start > len(line):
            return fields


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    import pyarrow as pa  # Parquet tables have no need of it

    with (
        pa.input_stream(str(path), compression="detect") as stream,
        io.BufferedReader(cast("io.RawIOBase", stream), BUFFER_BYTES) as found,
    ):
        yield cast("IO[bytes]", found)


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    import pyarrow as pa

    with pa.output_stream(str(path), compression="detect") as stream:
        yield cast("IO[bytes]", stream)
