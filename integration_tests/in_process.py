"""``write`` as the command line does it, over real pipes, without the cost of starting a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from destination_s3_datalake.errors import DatalakeError
from destination_s3_datalake.lake.session import ServiceFiles
from destination_s3_datalake.output import Output
from destination_s3_datalake.run import run_write

from integration_tests import evidence
from integration_tests.harness import Result

# A process of ours loads AWS's service descriptions once; here many syncs share a process.
_load = cache(ServiceFiles().load_file)
setattr(ServiceFiles, "load_file", lambda _, path: _load(path))  # noqa: B010  # mypy: a method


def write_in_process(config: Mapping[str, Any], configured: Mapping[str, Any], body: bytes) -> Result:
    """Write these lines; what was printed, and how it ended."""
    read_end, write_end = os.pipe()
    out_read, out_write = os.pipe()
    printed: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: _feed(write_end, body)),
        threading.Thread(target=lambda: printed.append(Path(f"/dev/fd/{out_read}").read_bytes())),
    ]
    for thread in threads:
        thread.start()
    output = Output(out_write)
    exit_code = 0
    try:
        run_write(config, configured, read_end, output)
    except DatalakeError as error:
        output.trace(error)
        exit_code = 1
    finally:
        os.close(out_write)
        os.close(read_end)  # what nobody reads any more ends the feeder
        for thread in threads:
            thread.join()
        os.close(out_read)
    if (kept := evidence.current()) is not None:
        kept.output(printed[0])
    return Result(exit_code, printed[0], b"")


def _feed(descriptor: int, body: bytes) -> None:
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)
