"""What a whole run of the tests left behind: every call to the lake, and everything that a child process printed.

``conftest.py`` at the root begins it in every process of a run and judges it once, at the end:

- Calls: each must be allowed by the table of permissions; after a run of the whole suite each of the table's must have
  been made (``destination_s3_datalake.iam``).
- Glue: every request passes ``glue_rules.py``, and so does every file that was written at a table's Location.
- Features: every test that a README's table names has passed.
- Output: no secret of a configuration and no canary of a record may stand there, nor in what Glue got, in any of the
  forms in which such a text leaks: as it is, escaped as JSON, percent-encoded, base64 at each alignment. RECORDs and
  STATEs hold what the user asked for and are left out, and so is the new configuration in a CONTROL message.

A child's output is kept as the test reads it, below ``subprocess``, so that no test has to think of it.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from destination_s3_datalake.iam import PERMISSIONS
from local_runner.lake import CALLS

from integration_tests import glue_rules

ROOT = Path(__file__).parents[1]
FOLDER = "TEST_EVIDENCE"
PROOF = re.compile(r"^\|.*\| `([\w/.-]+\.py::\w+(?:\[[^`]+\])?)` \|$", re.MULTILINE)
"""A row of a table of features: its last cell is a test, or one case of it."""
SECRET_FIELDS = {"access_key_id", "secret_access_key", "session_token", "password", "token", "api_key", "client_secret",
                 "refresh_token", "key", "login_body", "client_key"}  # fmt: skip
LEAST_LENGTH = 12  # shorter ones stand in ordinary words
CANARIES = ("c4n4ry", "do-not-print-me", "a-value-nobody-may-see", "SECRET-VALUE")
"""Values of records and broken lines in the tests."""
PAYLOADS = re.compile(rb'^\{"type": ?"(RECORD|STATE|CONTROL)"')
_numbers = itertools.count(1)


@dataclass
class Kept:
    """One folder that several processes write to."""

    folder: Path
    _secrets: set[str] = field(default_factory=set)

    def output(self, printed: bytes | str | None) -> None:
        """Keep what a child printed."""
        if printed:
            keeper = Keeper(self)
            keeper.feed(printed.encode(errors="surrogateescape") if isinstance(printed, str) else printed)
            keeper.close()

    def secrets_of(self, document: object) -> None:
        """Keep the secrets of a configuration."""
        for secret in secrets_in(document):
            if secret not in self._secrets:
                self._secrets.add(secret)
                with (self.folder / f"{os.getpid()}.secrets").open("a", encoding="utf-8") as kept:
                    kept.write(json.dumps(secret) + "\n")

    def leaks(self, *more: str) -> list[str]:
        """Where a secret or a canary stands, without showing it."""
        kept = {json.loads(line) for path in self.folder.glob("*.secrets") for line in path.read_bytes().splitlines()}
        texts = sorted({form for text in {*kept, *CANARIES, *more} for form in forms(text)}, key=len, reverse=True)
        wanted = re.compile(b"|".join(map(re.escape, texts)))
        return [
            f"{path.name}: {wanted.sub(b'<LEAK>', line)[max(0, place.start() - 200) :][:400]!r}"
            for path in sorted([*self.folder.glob("*.printed"), *self.folder.glob("*.glue")])
            for line in path.read_bytes().split(b"\n")
            if (place := wanted.search(line)) is not None
        ]

    def calls(self) -> set[str]:
        """Every kind of call to a lake."""
        return {line.strip() for path in self.folder.glob("*.calls") for line in path.read_text().splitlines()}

    def glue_problems(self) -> list[str]:
        """What is wrong with the requests to Glue, lake by lake."""
        return [problem for path in sorted(self.folder.glob("*.glue"))
                for problem in glue_rules.problems(_requests(path), _files(path.with_suffix(".files")))]  # fmt: skip


def _requests(path: Path) -> Iterator[glue_rules.Request]:
    with path.open("rb") as kept:
        for line in kept:
            action, _, body = line.partition(b" ")
            yield glue_rules.Request(action.decode(), json.loads(body))


def _files(path: Path) -> Iterator[glue_rules.File]:
    for line in path.read_bytes().splitlines() if path.exists() else ():
        begins, _, where = line.decode().partition(" ")
        yield glue_rules.File(f"s3://{where}", None if begins == "copy" else bytes.fromhex(begins))


class Keeper:
    """Keeps the lines of one stream, less those that hold records, states or a configuration."""

    def __init__(self, kept: Kept):
        self._path = kept.folder / f"{os.getpid()}-{next(_numbers)}.printed"
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._write(lines)

    def close(self) -> None:
        self._write([self._rest])
        self._rest = b""

    def _write(self, lines: Iterable[bytes]) -> None:
        lines = [line for line in lines if line and not PAYLOADS.match(line)]
        if lines:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("[")[0].encode()  # parameters may be canaries
            with self._path.open("ab") as file:
                file.writelines(line + b"   [" + test + b"]\n" for line in lines)


class KeptPipe(io.RawIOBase):
    """A child's pipe, which keeps what is read from it."""

    def __init__(self, pipe: io.FileIO, keeper: Keeper):
        self._pipe = pipe
        self._keeper = keeper

    def readinto(self, buffer: Any) -> int:
        size = self._pipe.readinto(buffer)
        self._keeper.feed(bytes(buffer[:size]))
        return size

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._pipe.fileno()

    def close(self) -> None:
        if not self.closed:
            self._pipe.close()
            self._keeper.close()
        super().close()


def begin(*, runs_tests: bool) -> Kept | None:
    """In each process of a run: keep what its children print. The evidence, for the process that is to judge it."""
    is_first = FOLDER not in os.environ
    if is_first:
        os.environ[FOLDER] = os.environ[CALLS] = tempfile.mkdtemp(prefix="test-evidence-")
    kept = Kept(Path(os.environ[FOLDER]))
    if runs_tests:
        _keep_output_of_children(kept)
    return kept if is_first else None


def current() -> Kept | None:
    """The evidence of this run; None outside of one."""
    return Kept(Path(os.environ[FOLDER])) if FOLDER in os.environ else None


def _keep_output_of_children(kept: Kept) -> None:
    start, communicate = subprocess.Popen.__init__, subprocess.Popen.communicate

    def started(self: Any, *arguments: Any, **named: Any) -> None:
        start(self, *arguments, **named)
        for name in ("stdout", "stderr"):
            pipe = getattr(self, name)
            if isinstance(pipe, io.BufferedReader) and isinstance(pipe.raw, io.FileIO):
                setattr(self, name, io.BufferedReader(KeptPipe(pipe.detach(), Keeper(kept))))  # type: ignore[arg-type]

    def communicated(self: Any, *arguments: Any, **named: Any) -> Any:
        printed = communicate(self, *arguments, **named)  # which reads the pipes by their number if there are several
        for text in printed:
            kept.output(text)
        return printed

    setattr(subprocess.Popen, "__init__", started)  # noqa: B010  # mypy: a method
    setattr(subprocess.Popen, "communicate", communicated)  # noqa: B010


def secrets_in(document: object, name: str = "") -> Iterable[str]:
    """The values of secret fields, wherever they stand."""
    match document:
        case Mapping():
            for key, value in document.items():
                yield from secrets_in(value, str(key))
        case list() | tuple():
            for value in document:
                yield from secrets_in(value, name)
        case str() if name in SECRET_FIELDS and len(document) >= LEAST_LENGTH:
            yield document


def forms(text: str) -> set[bytes]:
    """The forms in which a text leaks."""
    plain = text.encode(errors="surrogateescape")
    found = {
        plain,
        json.dumps(text)[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="replace"),
    }
    found |= {quote(text, safe="", errors="replace").encode(), quote_plus(text, errors="replace").encode()}
    for before in range(3):
        cut = base64.b64encode(b"\0" * before + plain)
        inner = cut[(0, 2, 3)[before] : len(cut) - 4]  # without the characters that the neighbours share
        if len(inner) >= 8:
            found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def problems(kept: Kept, *, is_whole: bool) -> list[str]:
    """What is wrong with the calls, the requests to Glue and the output of a run."""
    made = kept.calls()
    allowed = {call for permission in PERMISSIONS for call in permission.calls}
    found = [
        f"{call} is called, and destination_s3_datalake/iam.py does not allow it" for call in sorted(made - allowed)
    ]
    if is_whole:
        found += [f"{call} is allowed by destination_s3_datalake/iam.py, and no test makes that call"
                  for call in sorted(allowed - made)]  # fmt: skip
    found += kept.glue_problems()
    return found + [f"a secret or a record's value was printed: {leak}" for leak in kept.leaks()]


def proofs() -> dict[Path, list[str]]:
    """The tests that each README names as proofs."""
    readmes = (ROOT / "README.md", *sorted(ROOT.glob("*/README.md")))
    return {path: PROOF.findall(path.read_text("utf-8")) for path in readmes}


def unproved(passed: set[str]) -> list[str]:
    """Tests that a README names as a proof and that did not pass in a run of all."""
    named = {name for names in proofs().values() for name in names}
    return [f"{name} is named as a proof by a README, and did not run" for name in sorted(named - passed)]
