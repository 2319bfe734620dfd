"""The form: its file, Airbyte's rules for it, and what it refuses without quoting a value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from destination_s3_datalake import run
from destination_s3_datalake.config import Config, connection_specification, secrets_of
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.lake.log import json_schema
from destination_s3_datalake.specification import LOG_ENTRY_FILE, specification

SECRET = "a-secret-that-stays-here"
GOOD: dict[str, Any] = {
    "s3_bucket_name": "my-lake",
    "s3_bucket_region": "eu-central-1",
    "glue_database": "analytics",
    "credentials": {"auth_type": "access_key", "access_key_id": "AKIA12345", "secret_access_key": SECRET},
}


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the form with its path."""
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            yield from nodes(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from nodes(value, f"{path}.{number}")


def test_the_schema_of_log_entries_is_the_code():
    assert json.loads(LOG_ENTRY_FILE.read_text()) == json_schema(), "run: make spec"


def test_the_spec_file_is_the_code():
    assert run.spec() == specification(), "run: make spec"


def test_five_fields_are_enough():
    assert connection_specification()["required"] == [
        "s3_bucket_name",
        "s3_bucket_region",
        "glue_database",
        "credentials",
    ]
    assert Config.parse(GOOD).s3_bucket_path == "lake"


def test_every_field_is_explained_and_in_order():
    for path, node in nodes(connection_specification()):
        properties = node.get("properties")
        if properties is None or path.endswith("properties"):
            continue
        orders = [field.get("order") for field in properties.values()]
        assert len(set(orders)) == len(orders), path
        assert None not in orders, path
        for name, field in properties.items():
            assert field.get("title"), f"{path}.{name}"
            assert field.get("description"), f"{path}.{name}"


def test_nothing_that_the_form_cannot_show_is_in_it():
    forbidden = {"$ref", "$defs", "anyOf", "allOf", "not", "patternProperties", "if", "then", "else", "discriminator"}
    for path, node in nodes(connection_specification()):
        assert not forbidden & node.keys(), path


def test_branches_of_a_choice_are_told_apart_by_one_constant():
    for path, node in nodes(connection_specification()):
        if "oneOf" not in node:
            continue
        assert node["type"] == "object", path
        constants = []
        for branch in node["oneOf"]:
            assert branch["type"] == "object"
            (constant,) = [field["const"] for field in branch["properties"].values() if "const" in field]
            constants.append(constant)
        assert len(set(constants)) == len(constants), path


def test_whatever_sounds_like_a_secret_says_whether_it_is_one():
    for path, node in nodes(connection_specification()):
        for name, field in node.get("properties", {}).items():
            if field.get("type") == "string" and any(word in name for word in ("key", "token", "password", "secret")):
                assert isinstance(field.get("airbyte_secret"), bool), f"{path}.{name}"


def test_secrets_are_found_before_anything_is_validated():
    assert secrets_of({**GOOD, "s3_bucket_name": 7}) == (SECRET, "AKIA12345")


@pytest.mark.parametrize(
    "changes",
    [
        {"credentials": {"auth_type": SECRET}},
        {"credentials": SECRET},
        {"s3_bucket_name": SECRET.upper()},
        {"memory_limit_mb": SECRET},
        {"s3_endpoint": f"ftp://{SECRET}"},
        {"format": {"format_type": SECRET}},
        {"credentials": {"auth_type": "assume_role", "role_arn": SECRET}},
        {"credentials": {"auth_type": "assume_role", "role_arn": "arn:aws:iam::123456789012:role/x",
                         "access_key_id": SECRET}},
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_never_the_value(changes: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        Config.parse({**GOOD, **changes})
    assert SECRET.lower() not in (caught.value.message + repr(caught.value.facts)).lower()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "https://x.org"]
)
def test_plain_http_is_for_this_machine_only(url: str):
    assert Config.parse({**GOOD, "s3_endpoint": url}).s3_endpoint == url


def test_unknown_keys_and_nulls_are_tolerated():
    assert Config.parse({**GOOD, "__injected": 1, "s3_endpoint": None}).s3_endpoint is None
