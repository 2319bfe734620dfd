"""The embedded lake over its real socket. Each strictness is also asked of plain moto, where it must be missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, HTTPClientError
from local_runner.lake import RunningLake, running_lake, running_server

PART = b"x" * (5 << 20)


class Clients:
    """boto3 without retries on a lake, and a bucket and a table to work on."""

    def __init__(self, url: str, key_id: str = "test"):
        access: dict[str, Any] = {
            "endpoint_url": url,
            "aws_access_key_id": key_id,
            "aws_secret_access_key": "secret",
            "region_name": "eu-central-1",
            "config": Config(
                retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=40
            ),
        }
        self.url = url
        self.s3: Any = boto3.client("s3", **access)
        self.glue: Any = boto3.client("glue", **access)
        self.sts: Any = boto3.client("sts", **access)

    def prepare(self) -> Clients:
        self.s3.create_bucket(Bucket="b", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        self.glue.create_database(DatabaseInput={"Name": "d"})
        self.glue.create_table(DatabaseName="d", TableInput={"Name": "t", "PartitionKeys": [{"Name": "p"}]})
        return self

    def begin(self, key: str) -> str:
        return str(self.s3.create_multipart_upload(Bucket="b", Key=key)["UploadId"])

    def part(self, key: str, upload: str, body: bytes = PART) -> str:
        return str(self.s3.upload_part(Bucket="b", Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"])

    def complete(self, key: str, upload: str, etag: str) -> None:
        parts = [{"ETag": etag, "PartNumber": 1}]
        self.s3.complete_multipart_upload(Bucket="b", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    def keys(self, prefix: str = "") -> list[str]:
        found = self.s3.list_objects_v2(Bucket="b", Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", ())]


@pytest.fixture(scope="module")
def lake() -> Iterator[RunningLake]:
    with running_lake() as running:
        yield running


@pytest.fixture(scope="module")
def strict(lake: RunningLake) -> Clients:
    return Clients(lake.url).prepare()


@pytest.fixture(scope="module")
def plain() -> Iterator[Clients]:
    with running_server("local_runner.lake", "--plain") as port:
        yield Clients(f"http://127.0.0.1:{port}").prepare()


@pytest.fixture(autouse=True)
def fair_weather(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "lake" in request.fixturenames:
        running: RunningLake = request.getfixturevalue("lake")
        running.faults(reject=0.0, lose=0.0, cut=0.0, glue=0.0, delay=0.0, deny=[], keys=None, at=None)


def code(call: Callable[[], object]) -> str | None:
    """The error code that a call ends with; None if it succeeds."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


# ---- strictness: what the strict lake refuses, plain moto lets pass


def stale_version(clients: Clients) -> str | None:
    table = {"Name": "t", "PartitionKeys": [{"Name": "p"}]}
    seen = clients.glue.get_table(DatabaseName="d", Name="t")["Table"]["VersionId"]
    clients.glue.update_table(DatabaseName="d", TableInput=table, VersionId=seen)
    return code(lambda: clients.glue.update_table(DatabaseName="d", TableInput=table, VersionId=seen))


def completion_of_an_aborted_upload(clients: Clients) -> str | None:
    upload = clients.begin("aborted")
    etag = clients.part("aborted", upload)
    clients.s3.abort_multipart_upload(Bucket="b", Key="aborted", UploadId=upload)
    return code(lambda: clients.complete("aborted", upload, etag))


def completion_under_another_key(clients: Clients) -> str | None:
    upload = clients.begin("one")
    etag = clients.part("one", upload)
    return code(lambda: clients.complete("another", upload, etag))


def part_of_an_unknown_upload(clients: Clients) -> str | None:
    return code(lambda: clients.part("unknown", "no-such-upload", b"x"))


def other_bucket_owner(clients: Clients) -> str | None:
    return code(lambda: clients.s3.put_object(Bucket="b", Key="k", Body=b"", ExpectedBucketOwner="999999999999"))


def too_many_partitions_to_create(clients: Clients) -> str | None:
    many = [{"Values": [str(number)]} for number in range(101)]
    return code(lambda: clients.glue.batch_create_partition(DatabaseName="d", TableName="t", PartitionInputList=many))


def too_many_partitions_to_update(clients: Clients) -> str | None:
    many = [{"PartitionValueList": ["1"], "PartitionInput": {"Values": ["1"]}}] * 101
    return code(lambda: clients.glue.batch_update_partition(DatabaseName="d", TableName="t", Entries=many))


def too_many_partitions_to_delete(clients: Clients) -> str | None:
    many = [{"Values": [str(number)]} for number in range(26)]
    return code(lambda: clients.glue.batch_delete_partition(DatabaseName="d", TableName="t", PartitionsToDelete=many))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (stale_version, "ConcurrentModificationException"),
        (completion_of_an_aborted_upload, "NoSuchUpload"),
        (completion_under_another_key, "NoSuchUpload"),
        (part_of_an_unknown_upload, "NoSuchUpload"),
        (other_bucket_owner, "AccessDenied"),
        (too_many_partitions_to_create, "ValidationException"),
        (too_many_partitions_to_update, "ValidationException"),
        (too_many_partitions_to_delete, "ValidationException"),
    ],
)
def test_the_lake_refuses_what_plain_moto_lets_pass(
    strict: Clients, plain: Clients, case: Callable[[Clients], str | None], expected: str
):
    assert case(strict) == expected
    assert case(plain) != expected


def winners_of_a_conditional_put(clients: Clients, key: str) -> int:
    """How many of 16 writers of one key believe that they made it."""
    won: list[int] = []
    barrier = threading.Barrier(16)

    def put(number: int) -> None:
        barrier.wait()
        body = b"%d" % number * 200_000
        if code(lambda: clients.s3.put_object(Bucket="b", Key=key, Body=body, IfNoneMatch="*")) is None:
            won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(won)


def test_of_many_conditional_puts_at_once_exactly_one_succeeds(strict: Clients, plain: Clients):
    assert [winners_of_a_conditional_put(strict, f"race-{number}") for number in range(8)] == [1] * 8
    assert any(winners_of_a_conditional_put(plain, f"race-{number}") > 1 for number in range(60))


def half_a_put(clients: Clients, key: str) -> None:
    """Send the first half of an object, as a process does that is killed."""
    host, _, port = clients.url.removeprefix("http://").partition(":")
    head = (
        f"PUT /b/{key} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=0\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as sender:
        sender.sendall(head.encode() + b"x" * 500)
        sender.shutdown(socket.SHUT_WR)
        while sender.recv(4096):
            pass


def test_half_a_body_stores_nothing(strict: Clients, plain: Clients):
    half_a_put(strict, "half")
    half_a_put(plain, "half")
    assert strict.keys("half") == []
    assert plain.keys("half") == ["half"]


def test_what_is_right_passes(strict: Clients):
    table = {"Name": "t", "PartitionKeys": [{"Name": "p"}]}
    seen = strict.glue.get_table(DatabaseName="d", Name="t")["Table"]["VersionId"]
    strict.glue.update_table(DatabaseName="d", TableInput=table, VersionId=seen)
    strict.glue.update_table(DatabaseName="d", TableInput=table)
    many = [{"Values": [f"right-{number}"]} for number in range(100)]
    strict.glue.batch_create_partition(DatabaseName="d", TableName="t", PartitionInputList=many)
    strict.s3.put_object(Bucket="b", Key="k", Body=b"1", ExpectedBucketOwner="123456789012")
    assert strict.sts.get_caller_identity()["Account"] == "123456789012"


def test_completing_twice_is_one_completion(strict: Clients):
    upload = strict.begin("twice")
    etag = strict.part("twice", upload)
    strict.complete("twice", upload, etag)
    strict.complete("twice", upload, etag)
    strict.s3.delete_object(Bucket="b", Key="twice")
    assert code(lambda: strict.complete("twice", upload, etag)) == "NoSuchUpload"


def test_missing_tables_and_buckets_are_named_as_usual(strict: Clients):
    assert code(lambda: strict.part("k", "u", b"x")) == "NoSuchUpload"
    assert code(lambda: strict.s3.put_object(Bucket="no-such-bucket", Key="k")) == "NoSuchBucket"
    gone = {"DatabaseName": "d", "TableInput": {"Name": "gone"}, "VersionId": "1"}
    assert code(lambda: strict.glue.update_table(**gone)) == "EntityNotFoundException"


# ---- faults


def test_a_rejected_request_did_nothing(lake: RunningLake, strict: Clients):
    lake.faults(reject=1.0)
    codes = {code(lambda: strict.s3.put_object(Bucket="b", Key="rejected", Body=b"")) for _ in range(20)}
    lake.faults(reject=0.0)
    assert codes == {"SlowDown", "InternalError"}
    assert strict.keys("rejected") == []


def test_a_lost_answer_hides_what_was_done(lake: RunningLake, strict: Clients):
    lake.faults(lose=1.0)
    assert code(lambda: strict.s3.put_object(Bucket="b", Key="lost", Body=b"")) == "InternalError"
    lake.faults(lose=0.0)
    assert strict.keys("lost") == ["lost"]


@pytest.mark.parametrize(("when", "expected"), [("before", []), ("after", ["cut-after"])])
def test_a_cut_connection_gives_no_answer(lake: RunningLake, strict: Clients, when: str, expected: list[str]):
    lake.faults(at={"step": "s3:PutObject", "do": "cut", "when": when})
    with pytest.raises(ConnectionClosedError):
        strict.s3.put_object(Bucket="b", Key=f"cut-{when}", Body=b"")
    assert strict.keys(f"cut-{when}") == expected


def test_connections_are_cut_by_chance_too(lake: RunningLake, strict: Clients):
    lake.faults(cut=1.0)
    for call in (lambda: strict.s3.put_object(Bucket="b", Key="chance", Body=b""), strict.glue.get_databases):
        with pytest.raises((ConnectionClosedError, HTTPClientError)):
            call()
    counts = lake.faults(cut=0.0)["counts"]
    assert counts["cut"] >= 2
    assert strict.keys("chance") == ["chance"]


def test_glue_throttles_and_fails_without_doing_anything(lake: RunningLake, strict: Clients):
    lake.faults(glue=1.0)
    made = {code(lambda: strict.glue.create_database(DatabaseInput={"Name": "none"})) for _ in range(30)}
    lake.faults(glue=0.0)
    assert made == {"ThrottlingException", "ConcurrentModificationException", "InternalServiceException"}
    assert [database["Name"] for database in strict.glue.get_databases()["DatabaseList"]] == ["d"]


@pytest.mark.parametrize(
    ("action", "call", "expected"),
    [
        ("s3:PutObject", lambda c: c.s3.put_object(Bucket="b", Key="denied"), "AccessDenied"),
        ("s3:PutObject", lambda c: c.begin("denied"), "AccessDenied"),
        ("s3:PutObject", lambda c: c.s3.copy_object(Bucket="b", Key="denied", CopySource="b/k"), "AccessDenied"),
        ("s3:GetObject", lambda c: c.s3.get_object(Bucket="b", Key="k"), "AccessDenied"),
        ("s3:DeleteObject", lambda c: c.s3.delete_object(Bucket="b", Key="k"), "AccessDenied"),
        ("s3:ListBucket", lambda c: c.keys(), "AccessDenied"),
        ("s3:ListBucketMultipartUploads", lambda c: c.s3.list_multipart_uploads(Bucket="b"), "AccessDenied"),
        ("s3:AbortMultipartUpload",
         lambda c: c.s3.abort_multipart_upload(Bucket="b", Key="k", UploadId="u"), "AccessDenied"),
        ("s3:GetLifecycleConfiguration",
         lambda c: c.s3.get_bucket_lifecycle_configuration(Bucket="b"), "AccessDenied"),
        ("glue:CreateTable",
         lambda c: c.glue.create_table(DatabaseName="d", TableInput={"Name": "denied"}), "AccessDeniedException"),
    ],
)  # fmt: skip
def test_a_denied_action_is_denied_and_no_other(
    lake: RunningLake, strict: Clients, action: str, call: Callable[[Clients], object], expected: str
):
    strict.s3.put_object(Bucket="b", Key="k", Body=b"")
    lake.faults(deny=[action])
    assert code(lambda: call(strict)) == expected
    assert code(lambda: strict.s3.head_bucket(Bucket="b")) == ("403" if action == "s3:ListBucket" else None)
    lake.faults(deny=[])
    assert not any(key == "denied" for key in strict.keys())


def test_unknown_access_keys_are_refused_when_told_which_exist(lake: RunningLake, strict: Clients):
    lake.faults(keys=["test"])
    stranger = Clients(lake.url, key_id="stranger")
    assert code(lambda: stranger.s3.put_object(Bucket="b", Key="k")) == "InvalidAccessKeyId"
    assert code(stranger.glue.get_databases) == "UnrecognizedClientException"
    assert code(strict.glue.get_databases) is None


def test_a_shot_hits_its_step_once_and_where_it_was_aimed(lake: RunningLake, strict: Clients):
    lake.faults(at={"step": "s3:PutObject", "match": "aim/", "skip": 1, "do": "reject", "code": "SlowDown"})
    keys = ["other", "aim/1", "aim/2", "aim/3"]
    codes = [code(lambda key=key: strict.s3.put_object(Bucket="b", Key=key, Body=b"")) for key in keys]  # type: ignore[misc]
    assert codes == [None, None, "SlowDown", None]
    assert lake.faults()["at"] is None


def test_a_shot_can_hit_several_times(lake: RunningLake, strict: Clients):
    lake.faults(at={"step": "glue:GetTable", "do": "reject", "times": 2, "code": "ThrottlingException"})
    codes = [code(lambda: strict.glue.get_table(DatabaseName="d", Name="t")) for _ in range(3)]
    assert codes == ["ThrottlingException", "ThrottlingException", None]


def test_the_answer_to_a_completion_can_be_lost(lake: RunningLake, strict: Clients):
    upload = strict.begin("completed")
    etag = strict.part("completed", upload)
    lake.faults(at={"step": "s3:CompleteMultipartUpload", "do": "lose"})
    assert code(lambda: strict.complete("completed", upload, etag)) == "InternalError"
    assert strict.keys("completed") == ["completed"]


def test_a_delayed_request_is_done_although_its_sender_is_gone(lake: RunningLake, strict: Clients):
    lake.faults(at={"step": "s3:PutObject", "do": "delay", "seconds": 0.5})
    url = strict.url
    body = f"import boto3; boto3.client('s3', endpoint_url={url!r}).put_object(Bucket='b', Key='late', Body=b'')"
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    with subprocess.Popen([sys.executable, "-c", body], env=environment) as sender:
        wait_until(lambda: lake.faults()["at"] is None)
        sender.kill()
    assert strict.keys("late") == []
    wait_until(lambda: strict.keys("late") == ["late"])


def test_every_answer_can_be_slow(lake: RunningLake, strict: Clients):
    lake.faults(delay=0.3)
    begun = time.monotonic()
    strict.keys()
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(("when", "expected"), [("before", []), ("after", ["killed-after"])])
def test_a_shot_can_kill_the_sender(lake: RunningLake, strict: Clients, when: str, expected: list[str]):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        lake.faults(at={"step": "s3:PutObject", "do": "kill", "when": when, "pid": victim.pid})
        with pytest.raises((ClientError, BotoCoreError)):
            strict.s3.put_object(Bucket="b", Key=f"killed-{when}", Body=b"")
        assert victim.wait(timeout=10) == -signal.SIGKILL
    assert strict.keys(f"killed-{when}") == expected


def test_requests_are_logged_and_counted(lake: RunningLake, strict: Clients):
    before = lake.faults()["counts"]["requests"]
    upload = strict.begin("logged")
    strict.part("logged", upload)
    strict.s3.abort_multipart_upload(Bucket="b", Key="logged", UploadId=upload)
    strict.glue.get_databases()
    assert lake.requests()[-4:] == [
        {"action": "s3:CreateMultipartUpload", "on": "logged"},
        {"action": "s3:UploadPart", "on": "logged"},
        {"action": "s3:AbortMultipartUpload", "on": "logged"},
        {"action": "glue:GetDatabases", "on": ""},
    ]
    assert lake.faults()["counts"]["requests"] == before + 4


def test_the_same_seed_gives_the_same_faults(lake: RunningLake, strict: Clients):
    def weather() -> list[str | None]:
        lake.faults(reject=0.5, seed=7)
        return [code(strict.s3.list_buckets) for _ in range(20)]

    first = weather()
    assert weather() == first
    assert len(set(first)) > 1


# ---- the process


def test_a_lake_ends_with_the_block_that_started_it():
    with running_lake() as running:
        Clients(running.url).prepare()
    with pytest.raises(BotoCoreError):
        Clients(running.url).keys()


def test_a_lake_ends_with_a_parent_that_is_killed(tmp_path: Path):
    body = (
        "import pathlib, time\nfrom local_runner.lake import running_lake\n"
        f"with running_lake() as lake:\n pathlib.Path({str(tmp_path / 'draft')!r}).write_text(lake.url)\n"
        f" pathlib.Path({str(tmp_path / 'draft')!r}).rename({str(tmp_path / 'url')!r})\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", body]) as parent:
        wait_until((tmp_path / "url").exists)
        parent.kill()
    port = int((tmp_path / "url").read_text().rpartition(":")[2])
    wait_until(lambda: not answers(port))


def test_a_lake_says_where_it_is_on_stdout():
    command = [sys.executable, "-m", "local_runner.lake"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        Clients(url).prepare()
        process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
