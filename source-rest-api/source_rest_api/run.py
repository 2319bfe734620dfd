"""The command line: ``spec`` from a file, ``read`` and its like by the CDK's entrypoint, with pages written as they
are; the commands for people are in ``commands``.

Every line leaves whole, through one buffer. When nobody reads any more, the process ends at once. Errors are TRACE
messages, one per stream; a stack trace in them holds files and lines only.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from source_rest_api.entrypoint import PageEntrypoint

INTERRUPTED = 130
BUFFER_BYTES = 1 << 16
SPEC = Path(__file__).with_name("spec.json")


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if arguments == ["spec"]:
        sys.stdout.write(json.dumps({"type": "SPEC", "spec": json.loads(SPEC.read_text("utf-8"))}) + "\n")
        return
    from source_rest_api import commands  # argparse and logging, which spec does without

    try:
        code = commands.main(arguments, sys.stdout) if commands.is_ours(arguments) else _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    # Workers may still wait for an API or for room in a queue that nobody empties: do not join them.
    _end(code)


def _run(arguments: list[str]) -> int:
    with quick_imports():
        import source_rest_api.entrypoint  # noqa: F401  # the slow part
    return run(arguments, _one_stdout())


@contextmanager
def quick_imports() -> Iterator[None]:
    """For the block that imports the CDK first."""
    gc.disable()  # while modules are loaded there is nothing to collect
    _skip_attribute_docs()
    yield
    gc.freeze()  # the modules stay: no collection need look at them again
    gc.enable()


def run(arguments: list[str], out: BinaryIO) -> int:
    """One command; its messages go to ``out``. Returns the exit code.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    from source_rest_api.entrypoint import PageEntrypoint, error_line

    parsed = PageEntrypoint.parse_args(arguments)
    entrypoint: PageEntrypoint | None = None
    try:
        entrypoint = PageEntrypoint.build(parsed, out)
        for line in entrypoint.run(parsed):
            out.write(line.encode() + b"\n")
            out.flush()
    except BrokenPipeError:
        raise
    except Exception as problem:  # noqa: BLE001  # the one place where an error becomes a TRACE
        if entrypoint is None or not entrypoint.has_traced:
            out.write(error_line(problem).encode() + b"\n")
        out.flush()
        return 1
    return 0


def _one_stdout() -> BinaryIO:
    """One locked buffer for our lines and for what the CDK prints from its threads.

    With PYTHONUNBUFFERED, as images often set it, sys.stdout has no buffer: long lines could be cut by others.
    """
    out: BinaryIO = io.BufferedWriter(io.FileIO(sys.stdout.fileno(), "wb", closefd=False), BUFFER_BYTES)
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stdout = text
    sys.__stdout__ = text  # type: ignore[misc]  # the CDK's logs go there
    return out


def _skip_attribute_docs() -> None:
    """Spare the CDK's models a search through their own source code for descriptions that nobody reads here.

    It takes a third of the start-up. Without the module, or with another shape of it, nothing is changed.
    """
    try:
        import attributes_doc
    except ImportError:
        return
    if hasattr(attributes_doc, "get_attributes_doc"):

        def no_docs(cls: type) -> dict[str, str]:
            return {}

        attributes_doc.get_attributes_doc = no_docs


def places(problem: BaseException) -> str:
    """Files and lines of a stack, without any text of the error."""
    frames = traceback.extract_tb(problem.__traceback__)
    return "\n".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames)


def _end(code: int) -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
