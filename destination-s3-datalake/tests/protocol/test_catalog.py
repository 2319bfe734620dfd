"""What the catalog says, and what a run means."""

from __future__ import annotations

from typing import Any

import pytest
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.protocol.catalog import Intent, StreamId, intent_of, parse_catalog


def catalog(**changes: Any) -> dict[str, Any]:
    entry = {
        "stream": {"name": "orders", "json_schema": {"type": "object"}},
        "sync_mode": "incremental",
        "destination_sync_mode": "append",
        **changes,
    }
    return {"streams": [entry]}


def intent(*, published: int | None = None, continues: bool = False, **changes: Any) -> Intent:
    plan = parse_catalog(catalog(**changes))[StreamId(None, "orders")]
    return intent_of(plan, published_generation=published, continues=continues).intent


FULL = {"sync_mode": "full_refresh"}
REPLACE = {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
DEDUP = {"destination_sync_mode": "append_dedup", "primary_key": [["id"]]}
ONES = {"generation_id": 1, "minimum_generation_id": 1, "sync_id": 1}


@pytest.mark.parametrize(
    ("entry", "log", "meant"),
    [
        ({}, {}, Intent.APPEND),
        (FULL, {}, Intent.APPEND_AT_END),
        (REPLACE, {}, Intent.REPLACE),
        (REPLACE, {"continues": True}, Intent.APPEND),
        (ONES, {"published": 7}, Intent.APPEND),
        ({**REPLACE, **ONES}, {"published": 1}, Intent.REPLACE),
        (DEDUP, {}, Intent.UPSERT),
        ({**DEDUP, **ONES}, {"published": 1}, Intent.UPSERT),
        ({**DEDUP, "generation_id": 5, "minimum_generation_id": 0, "sync_id": 9}, {}, Intent.UPSERT),
        ({**DEDUP, "generation_id": 5, "minimum_generation_id": 5, "sync_id": 9}, {}, Intent.REFRESH_UPSERT),
        ({**DEDUP, "generation_id": 5, "minimum_generation_id": 5, "sync_id": 9}, {"published": 5}, Intent.UPSERT),
        ({"generation_id": 5, "minimum_generation_id": 0, "sync_id": 9}, {}, Intent.APPEND),
        ({**FULL, "generation_id": 5, "minimum_generation_id": 5, "sync_id": 9}, {"published": 4}, Intent.REFRESH),
        ({**FULL, "generation_id": 5, "minimum_generation_id": 5, "sync_id": 9}, {"published": 5}, Intent.APPEND),
        ({**FULL, "generation_id": 4, "minimum_generation_id": 4, "sync_id": 9}, {"published": 5}, Intent.REFRESH),
    ],
)  # fmt: skip
def test_what_a_run_means(entry: dict[str, Any], log: dict[str, Any], meant: Intent):
    assert intent(**entry, **log) is meant


@pytest.mark.parametrize(("generation", "minimum"), [(5, 3), (5, 6)])
def test_generations_that_contradict_each_other_are_refused(generation: int, minimum: int):
    with pytest.raises(ConfigError, match="minimum_generation_id"):
        intent(generation_id=generation, minimum_generation_id=minimum, sync_id=2)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "no streams"),
        ({"streams": []}, "no streams"),
        ({"streams": [{"stream": {}}]}, "Stream number 1"),
        (catalog(destination_sync_mode="update"), "append, overwrite, append_dedup"),
        (catalog(sync_mode="x"), "sync mode"),
        (catalog(stream={"name": "orders"}), "no JSON schema"),
        (catalog(generation_id="5"), "whole number"),
        ({"streams": catalog()["streams"] * 2}, "twice"),
    ],
)
def test_a_catalog_that_cannot_be_used_is_refused_by_name(raw: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        parse_catalog(raw)


def test_an_empty_namespace_is_no_namespace():
    raw = catalog(stream={"name": "orders", "namespace": "", "json_schema": {}})
    assert list(parse_catalog(raw)) == [StreamId(None, "orders")]
