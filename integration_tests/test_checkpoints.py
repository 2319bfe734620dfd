"""The folded log beside its entries: an opener reads one object, and loses nothing without it."""

from __future__ import annotations

import signal
from typing import Any

from destination_s3_datalake.config import BucketDefault
from destination_s3_datalake.lake import log
from destination_s3_datalake.lake.s3 import Bucket
from destination_s3_datalake.lake.table_log import TableLog

from integration_tests.harness import House, record, state
from integration_tests.test_crashes import killer


def checkpoints(house: House) -> list[str]:
    return [key for key in house.keys("lake/_airbyte/") if "/checkpoint-" in key]


def sync(house: House, number: int):
    return house.write([state({"c": number - 1}), record(number), state({"c": number})])


def s3_requests_until_open(house: House, begun: int) -> list[str]:
    """What a process asked of S3 about the table, up to its open entry, since request number ``begun``."""
    asked = [f"{request['action']} {request['on']}" for request in house.lake.requests()[begun:]]
    ours = [text for text in asked if text.startswith("s3:") and "/writers/" not in text]
    opened = next(index for index, text in enumerate(ours) if text.startswith("s3:PutObject") and "/log/0" in text)
    return ours[: opened + 1]


def test_every_run_that_ends_well_leaves_a_checkpoint_and_two_are_kept(house: House):
    for number in range(1, 6):
        assert sync(house, number).exit_code == 0
    entries = sorted(house.log_entries())
    found = checkpoints(house)
    assert len(found) == 2
    last = max(key for key in entries if "/checkpoint-" not in key)
    assert found[-1].removesuffix(".json")[-20:] == last.removesuffix(".json")[-20:]
    assert house.ids() == [1, 2, 3, 4, 5]


def test_without_checkpoints_or_with_broken_ones_everything_is_read_again(house: House):
    assert sync(house, 1).exit_code == 0
    for key in checkpoints(house):
        house.s3.put_object(Bucket=house.bucket, Key=key, Body=b"{broken")
    assert sync(house, 2).exit_code == 0
    for key in checkpoints(house):
        house.s3.delete_object(Bucket=house.bucket, Key=key)
    assert sync(house, 3).exit_code == 0
    assert house.ids() == [1, 2, 3]


def test_a_death_around_the_checkpoint_harms_nothing(house: House):
    for number, when in enumerate(("before", "after"), start=1):
        arm = killer(house, "s3:PutObject", "/log/checkpoint-", when)
        killed = house.write([record(number), state({"c": number})], on_start=arm)
        house.lake.faults(at=None)
        assert killed.exit_code == -signal.SIGKILL
    assert sync(house, 3).exit_code == 0
    assert house.ids() == [1, 2, 3]


def add_syncs(table_log: TableLog, count: int, *, log_id: str, folder: str) -> None:
    """Entries of syncs that brought nothing."""
    epoch = 0

    def common(seq: int, uid: str, now: str) -> dict[str, Any]:
        return {"seq": seq, "epoch": epoch, "uid": uid, "log_id": log_id, "time": now}

    for number in range(count):
        epoch = table_log.state.next_seq if table_log.state else 0
        table_log.append(
            lambda *at: log.Open(**common(*at), stream=(None, "orders"), writer="w", started="2020-01-01T00:00:00Z",
                                 sync_id=None, generation=None, min_generation=None, mode="append",
                                 resume_state_hash=None, full_refresh=False)
        )  # fmt: skip
        segments = (log.Segment(rows=0, state_hash=f"{number}"),)
        table_log.append(
            lambda *at, segments=segments: log.Commit(**common(*at), folder=folder, generation=None, files=(),
                                                      segments=segments, replay_key=None, columns=None, names=None,
                                                      applied_upto=-1)
        )  # fmt: skip
        table_log.append(lambda *at: log.Close(**common(*at), applied_upto=-1))


def test_a_long_log_is_opened_with_few_requests(house: House):
    assert sync(house, 1).exit_code == 0
    (first,) = [key for key in house.log_entries() if key.endswith("/log/" + "0" * 20 + ".json")]
    prefix = first.rpartition("/")[0]
    table_log = TableLog(Bucket(house.s3, house.bucket, BucketDefault(encryption_type="bucket_default")), prefix, "t")
    found = table_log.read()
    assert found is not None
    add_syncs(table_log, 400, log_id=found.log_id, folder=found.folder or "")
    table_log.write_checkpoint()
    begun = len(house.lake.requests())
    assert sync(house, 2).exit_code == 0
    asked = s3_requests_until_open(house, begun)
    assert len(asked) <= 6, asked
    assert house.ids() == [1, 2]
    assert len(house.log_entries()) > 1200
    assert len(checkpoints(house)) == 2
