"""What the log says of partitions, and what Glue may answer for one partition of a batch."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from destination_s3_datalake.errors import DatalakeError
from destination_s3_datalake.lake.glue import Catalog, GluePartition
from destination_s3_datalake.lake.log import AnyEntry, Commit, DataFile, Open, Published, Segment, Swap, Void, fold_all
from destination_s3_datalake.records.partitions import PartitionKey

BASE: dict[str, Any] = {"uid": "u", "log_id": "l", "time": "t"}
KEYS = (PartitionKey(name="key", column="c", transform="identity"),)
PARTITION = GluePartition(("a",), {"Values": ["a"], "StorageDescriptor": {"Location": "s3://lake/a/"}})
CALLS = {
    "create_partitions": ("batch_create_partition", "PartitionValues"),
    "update_partitions": ("batch_update_partition", "PartitionValueList"),
    "drop_partitions": ("batch_delete_partition", "PartitionValues"),
}


def opened(seq: int) -> Open:
    return Open(
        **BASE, seq=seq, epoch=seq, stream=(None, "s"), writer="w", started=str(seq), sync_id=None, generation=None,
        min_generation=None, mode="append", resume_state_hash=None, full_refresh=False,
    )  # fmt: skip


def swapped(seq: int, folder: str, **more: Any) -> Swap:
    said = {"columns": (), "names": {}, "generation": None, "upto": -1, "partitioning": KEYS, "replaces": False, **more}
    return Swap(**BASE, seq=seq, epoch=0, folder=folder, **said)


def committed(seq: int, folder: str, *values: str) -> Commit:
    file = DataFile(key=f"{folder}/f", upload_id="u", etags=("e",), rows=1, bytes=1, checksum="c")
    return Commit(
        **BASE, seq=seq, epoch=0, folder=folder, partitions=tuple((value,) for value in values), generation=None,
        files=(file,), segments=(Segment(rows=1, state_hash=None),), replay_key=None, columns=None, names=None,
        applied_upto=0,
    )  # fmt: skip


START: list[AnyEntry] = [opened(0), swapped(1, "live"), Published(**BASE, seq=2, epoch=0, swap_seq=1)]


def test_the_partitions_of_a_table_are_those_of_its_live_commits():
    state = fold_all([*START, committed(3, "live", "b"), committed(4, "live", "a"), committed(5, "aside", "x")])
    assert state is not None
    assert (state.partitioning, state.partitions) == (KEYS, (("a",), ("b",)))


def test_a_void_commit_takes_back_the_partitions_it_began():
    entries = [*START, committed(3, "live", "b"), committed(4, "live", "a")]
    state = fold_all([*entries, Void(**BASE, seq=5, epoch=5, commit_seq=4)])
    assert state is not None
    assert state.partitions == (("b",),)


def test_a_swap_says_every_partition_there_is():
    state = fold_all([*START, committed(3, "live", "b"), swapped(4, "new", partitions=(("d",), ("c",)), files=())])
    assert state is not None
    assert state.partitions == (("c",), ("d",))


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        ("create_partitions", "ResourceNumberLimitExceededException", "config_error"),
        ("create_partitions", "InternalServiceException", "transient_error"),
        ("update_partitions", "EntityNotFoundException", "transient_error"),
        ("drop_partitions", "AccessDeniedException", "config_error"),
    ],
)
def test_what_is_wrong_with_one_partition_of_a_batch_is_an_error(call: str, code: str, kind: str):
    with pytest.raises(DatalakeError) as caught:
        answered(call, code)
    assert caught.value.failure_type == kind


def test_a_partition_that_is_there_or_gone_already_is_none():
    assert answered("create_partitions", "AlreadyExistsException") == [("a",)]
    assert answered("drop_partitions", "EntityNotFoundException") is None


def answered(call: str, code: str) -> Any:
    """What a call makes of an answer that refuses the one partition."""
    client = boto3.client("glue", region_name="r", aws_access_key_id="k", aws_secret_access_key="s")
    verb, values = CALLS[call]
    with Stubber(client) as stub:
        stub.add_response(verb, {"Errors": [{values: ["a"], "ErrorDetail": {"ErrorCode": code}}]})
        catalog = Catalog(client, catalog_id=None, create_databases=False)
        argument: Any = [("a",)] if call == "drop_partitions" else [PARTITION]
        return getattr(catalog, call)("d", "t", argument)
