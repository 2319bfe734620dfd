"""What an operator reads in the log of a sync: what each step did, how long rows waited, and never long silence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest
from destination_s3_datalake import output
from destination_s3_datalake.output import Output

from integration_tests.acceptance_cases import END, OVERWRITE, dedup, point, row, stream
from integration_tests.harness import DESTINATION, House, Message, Result, as_lines, plain_environment

SECONDS = r"\d+\.\d s"


def said(result: Result) -> list[str]:
    assert result.exit_code == 0, result.errors
    return [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "INFO"]


def only(texts: list[str], pattern: str) -> re.Match[str]:
    (found,) = [match for match in (re.fullmatch(pattern, text) for text in texts) if match]
    return found


def test_each_commit_says_rows_files_bytes_seconds_and_how_long_the_oldest_row_waited(house: House):
    files = house.save(config=house.config(max_commit_interval_s=1), catalog={"streams": [stream()]})
    command = [str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=plain_environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(as_lines([row(id=1), point(1)]))
        process.stdin.flush()
        first = b""
        while b'"STATE"' not in first:  # committed, though nothing more came
            line = process.stdout.readline()
            assert line, "it ended early"
            first += line
        stdout, stderr = process.communicate(as_lines([row(id=2), row(id=3), point(2)]), timeout=60)
    texts = said(Result(process.returncode, first + stdout, stderr))
    pattern = rf"s: committed (\d+) rows in 1 files \((\d+) bytes\) in {SECONDS}; the oldest had waited (\d+)\.\d s\."
    commits = [match for match in (re.fullmatch(pattern, text) for text in texts) if match]
    assert [int(found[1]) for found in commits] == [1, 2]
    sizes = sorted(house.s3.head_object(Bucket=house.bucket, Key=key)["ContentLength"] for key in house.live_keys("s"))
    assert sorted(int(found[2]) for found in commits) == sizes
    assert int(commits[0][3]) >= 1, "the first row waited for its interval to end"


def test_a_replace_says_what_became_the_table(house: House):
    overwrite: Message = {"streams": [stream(**OVERWRITE)]}
    texts = said(house.write([row(id=1), row(id=2), END], overwrite))
    found = only(texts, rf"s: published 2 rows in 1 files \((\d+) bytes\) as the new table in {SECONDS}\.")
    (key,) = house.live_keys("s")
    assert int(found[1]) == house.s3.head_object(Bucket=house.bucket, Key=key)["ContentLength"]


def test_a_merge_says_what_it_read_and_wrote(house: House):
    upsert: Message = {"streams": [stream(**dedup())]}
    said(house.write([row(id=1, c=1), row(id=2, c=1), point(1)], upsert))
    texts = said(house.write([point(1), row(id=2, c=2), row(id=3, c=2), point(2)], upsert))
    only(
        texts,
        r"s: merged 2 rows into the table: 2 added, 1 replaced or deleted, 3 rows now; \d+ bytes read, \d+ bytes in "
        rf"the new folder, 0 files kept as they were, {SECONDS}\.",
    )


def test_the_end_has_a_line_per_stream_with_rows_received_stored_dropped_and_changed(house: House):
    messages = [row(id=1), row(id="no number"), point(1)]
    assert said(house.write(messages, {"streams": [stream()]}))[-1] == (
        "s: 2 rows received, 2 stored, 0 dropped as replays, 1 with changes."
    )
    again = said(house.write([*messages, row(id=3), point(2)], {"streams": [stream()]}))[-1]
    assert re.fullmatch(r"s: 3 rows received, \d stored, \d dropped as replays, 1 with changes\.", again)


def test_long_work_says_again_and_again_that_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    assert output.PROGRESS_SECONDS <= 60
    monkeypatch.setattr(output, "PROGRESS_SECONDS", 0.05)
    readable, writable = os.pipe()
    with Output(writable).progress("t: merging 7 bytes of Parquet"):
        time.sleep(0.3)
    os.close(writable)
    with open(readable, "rb") as lines:
        texts = [json.loads(line)["log"]["message"] for line in lines]
    assert len(texts) >= 3
    assert all(re.fullmatch(r"t: merging 7 bytes of Parquet: still at it after \d+ s\.", text) for text in texts)
