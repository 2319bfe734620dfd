"""The heartbeat of this process: one S3 object, renewed while the process lives, deleted when it ends well.

Its first S3 time stamp is when this process *started*, which orders processes (the log only orders their opens): it is
read back before the second beat changes it. Ages are measured by S3's clock alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from datetime import datetime

from destination_s3_datalake.errors import DatalakeError, TransientError
from destination_s3_datalake.lake.s3 import Bucket

BEAT_SECONDS = 20.0  # or a third of the time after which others take over, if that is shorter


class Heartbeat:
    """Use as a context manager around the whole sync. ``writer`` and ``started`` name this process in the log.

    After ``begin_again`` both are new; the objects before beat on, for tables were opened under them.
    """

    def __init__(self, bucket: Bucket, prefix: str, *, takeover_after_seconds: int):
        self._bucket = bucket
        self._prefix = prefix
        self._pause = min(BEAT_SECONDS, takeover_after_seconds / 3 or BEAT_SECONDS)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._keys: list[str] = []
        self.writer = ""
        self.started = ""

    def __enter__(self) -> Heartbeat:
        self._begin()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            for key in self._keys:
                self._bucket.delete(key)
        except DatalakeError:
            return  # it ages away; the sync's own result matters more

    def begin_again(self) -> None:
        """Become a process that started a moment later, under a new heartbeat object."""
        time.sleep(1.1)  # S3 stamps whole seconds
        with self._lock:
            self._begin()

    def age_of(self, writer: str) -> float | None:
        """Seconds since another process last beat; None if its heartbeat object is gone."""
        found = self._bucket.head(_key(self._prefix, writer))
        return None if found is None else (found.now - found.modified).total_seconds()

    def _begin(self) -> None:
        self.writer = str(uuid.uuid4())
        key = _key(self._prefix, self.writer)
        self._bucket.put(key, b"")
        self._keys.append(key)
        info = self._bucket.head(key)
        if info is None:
            raise TransientError("The heartbeat object vanished: does a lifecycle rule expire _airbyte/?")
        self.started = _stamp(info.modified)

    def _beat(self) -> None:
        while not self._stop.wait(self._pause):
            with self._lock:
                try:
                    for key in self._keys:
                        self._bucket.put(key, b"")
                except DatalakeError:
                    continue  # the log fences, not the heartbeat: a missed beat costs at most a takeover


def _key(prefix: str, writer: str) -> str:
    return f"{prefix}/_airbyte/writers/{writer}"


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
