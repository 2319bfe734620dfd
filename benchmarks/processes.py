"""What a process used until its end."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

from integration_tests.harness import peak_of

PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Used:
    """Seconds of CPU (its own and of what it waited for), seconds since the call, MB of memory at its highest."""

    cpu: float
    wall: float
    peak_mb: int


def finished(process: subprocess.Popen[bytes]) -> Used:
    """Wait for a process of ours; its ``returncode`` is set. Linux only."""
    begun, peak = time.monotonic(), 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(PAUSE_SECONDS)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Used(used.ru_utime + used.ru_stime, time.monotonic() - begun, peak)
