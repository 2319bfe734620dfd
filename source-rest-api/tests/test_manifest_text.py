"""Manifests as texts: what is refused, with which words; and numbers that keep their digits."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from hypothesis import given
from hypothesis import strategies as st
from source_rest_api.exact_json import dumps, loads
from source_rest_api.manifest import Manifest, describe

SPEC = {
    "type": "Spec",
    "documentation_url": "https://example.com/docs",
    "connection_specification": {
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": {"type": "string", "airbyte_secret": True},
            "mode": {
                "type": "object",
                "oneOf": [
                    {"properties": {"kind": {"const": "a"}, "tokens": {"type": "array", "airbyte_secret": True}}}
                ],
            },
            "n": {"type": "integer"},
        },
    },
}


def stream(**more: Any) -> dict[str, Any]:
    return {
        "type": "DeclarativeStream",
        "name": "items",
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {"type": "HttpRequester", "url": "https://api.example.com/items", **more.pop("requester", {})},
            "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": []}},
            **more.pop("retriever", {}),
        },
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"properties": {"class_name": {"type": "string"}}}},
        **more,
    }


def manifest(*streams: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["items"]},
        "streams": list(streams or (stream(),)),
        **more,
    }


def refusal(work: Any, *arguments: Any) -> str:
    with pytest.raises(AirbyteTracedException) as caught:
        work(*arguments)
    assert caught.value.failure_type is FailureType.config_error
    return caught.value.message or ""


CUSTOM = {"type": "CustomAuthenticator", "class_name": "os.system"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 6\nstreams:\n  - name: 'x", "manifest: line 3"),
        ("version: 6\n\tstreams: []", "line 2"),
        ("a: [1, 2", "neither YAML nor JSON"),
        ("just words", "manifest is no object"),
        ("- 1\n- 2", "manifest is no object"),
        (manifest(stream(requester={"authenticator": CUSTOM})),
         "streams[0].retriever.requester.authenticator is a custom component"),
        (manifest(stream(requester={"authenticator": {"$ref": "#/definitions/a"}}), definitions={"a": CUSTOM}),
         "streams[0].retriever.requester.authenticator is a custom component"),
        (manifest(stream(transformations=[{"class_name": "x.Y"}])), "streams[0].transformations[0] is a custom"),
        (manifest(stream(), dynamic_streams=[{"stream_template": stream(retriever={"paginator": {
            "type": "DefaultPaginator", "pagination_strategy": {"type": "CustomPaginationStrategy"}}})}]),
         "dynamic_streams[0].stream_template.retriever.paginator.pagination_strategy is a custom component"),
        (manifest(stream(file_uploader={"type": "FileUploader"})), "streams[0].file_uploader: files are not"),
        (manifest(stream(schema_loader={"type": "JsonFileSchemaLoader", "file_path": "/etc/x"})), "reads a file"),
        (manifest(stream(requester={"$ref": "#/definitions/gone"})), "Undefined reference #/definitions/gone"),
        (manifest(a="#/b", b="#/a"), "Circular reference"),
        (manifest(version="99.1.0"), "made for version 99.1.0"),
        (manifest(version="newest"), "version is none"),
        (manifest(stream(requester={"http_method": 7})), "streams[0].retriever.requester.http_method"),
        (manifest(stream(incremental_sync={"type": "DatetimeBasedCursor", "cursor_field": "at"})),
         "streams[0].incremental_sync (stream 'items') needs"),
        ({"version": "6.0.0", "streams": [stream()]}, "the top needs 'check'"),
        (manifest(strems=[]), "the top knows no 'strems'"),
        (manifest(stream(retriever={"requester": {"type": "HttpRequestor"}})), "streams[0]"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_refused_with_its_place(text: Any, words: str) -> None:
    found = refusal(Manifest.parse, text if isinstance(text, str) else json.dumps(text))
    assert words in found
    assert "os.system" not in found


def test_fields_that_are_called_like_custom_code_are_none() -> None:
    made = Manifest.parse(json.dumps(manifest(stream(requester={"request_parameters": {"class_name": "Algebra"}}))))
    assert made.streams == ["items"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "manifest_config: line 1"),
        ("[1]", "manifest_config is no object"),
        ("", "the top needs 'key'"),
        ('{"key": 12345}', "key must be a text"),
        ('{"key": "k", "n": "12345"}', "n must be an integer"),
        ('{"key": "k", "start_dat": "12345"}', "'start_dat' is no field of the manifest's spec"),
        ('{"key": "k", "__injected_components_py": "12345"}', "two underscores"),
    ],
)
def test_a_bad_configuration_is_refused_without_its_values(config: str, words: str) -> None:
    found = refusal(Manifest.parse(json.dumps(manifest(spec=SPEC))).config, config)
    assert words in found
    assert "12345" not in found


def test_keys_that_the_manifest_reads_need_not_be_in_its_spec() -> None:
    made = Manifest.parse(json.dumps(manifest(stream(requester={"url": "{{ config['hidden'] }}"}), spec=SPEC)))
    assert made.config("key: k\nhidden: 1") == {"key": "k", "hidden": 1}


def test_secrets_are_what_the_spec_marks_or_every_text() -> None:
    config = {"key": "k-1", "mode": {"kind": "a", "tokens": ["t-1", "t-2"]}, "n": 3}
    assert set(Manifest.parse(json.dumps(manifest(spec=SPEC))).secrets(config)) == {"k-1", "t-1", "t-2"}
    assert set(Manifest.parse(json.dumps(manifest())).secrets(config)) == {"k-1", "a", "t-1", "t-2", "3"}


WAY = "Give either base_url and streams, or a manifest"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_url": "https://x", "streams": [{"name": "a", "path": "/a"}]}, WAY),
        ({"manifest": ""}, WAY),
        ({"manifest": "", "streams": [{"name": "a", "path": "/a"}], "manifest_config": ""}, "base_url is missing"),
        (
            {"manifest": "", "streams": [{"name": "a", "path": "/a"}], "base_url": "https://x"},
            "manifest_config is for a",
        ),
        ({"base_url": "https://x"}, "base_url does not go with a manifest"),
        ({"credentials": {"auth_type": "bearer", "token": "12345"}}, "credentials does not go"),
        ({"headers": [{"name": "a", "value": "12345"}]}, "headers does not go"),
        ({"pagination": {"pagination_type": "page"}}, "pagination does not go"),
        ({"max_retries": 2}, "max_retries does not go"),
        ({"check_streams": ["items"]}, "check_streams does not go"),
        ({"rate_limit": {"max_wait_seconds": 5}}, "rate_limit.max_wait_seconds does not go"),
        ({"num_workers": 8}, "num_workers is given, and the manifest has concurrency_level"),
        ({"rate_limit": {"requests_per_second": 8}}, "rate_limit is given, and the manifest has api_budget"),
    ],
)
def test_form_and_manifest_do_not_mix_in_silence(change: dict[str, Any], words: str) -> None:
    limits = {
        "concurrency_level": {"type": "ConcurrencyLevel", "default_concurrency": 3},
        "api_budget": {"type": "HTTPAPIBudget", "policies": []},
    }
    whole = {"manifest": json.dumps(manifest(spec=SPEC, **limits)), "manifest_config": '{"key": "k"}', **change}
    found = refusal(describe, whole)
    assert words in found
    assert "12345" not in found


def test_defaults_that_airbytes_form_fills_in_do_no_harm() -> None:
    filled = {"credentials": {"auth_type": "none"}, "num_workers": 4, "max_retries": 5, "streams": []}
    found = describe({"manifest": json.dumps(manifest(spec=SPEC)), "manifest_config": '{"key": "k"}', **filled})
    assert found.streams == ["items"]
    assert found.connection_specification == SPEC["connection_specification"]
    assert (found.documentation_url, found.version) == ("https://example.com/docs", "6.0.0")


NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=None).map(lambda number: f"{number:e}"),
    st.decimals(-(10**9), 10**9, places=22).map(lambda number: f"{number:f}"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@given(st.lists(NUMBERS))
def test_every_number_of_json_comes_out_as_the_same_number(numbers: list[str]) -> None:
    text = f'{{"a":[{",".join(numbers)}],"b":"1e400 12345678901234567890"}}'
    found = json.loads(dumps(loads(text)), parse_float=Decimal, parse_int=Decimal)
    assert found["a"] == [Decimal(number) for number in numbers]


VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**63), 2**63),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_everything_else_comes_out_as_it_came(value: Any) -> None:
    assert loads(dumps(loads(json.dumps(value, ensure_ascii=False)))) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": NaN, "b": 1.23456789012345678901}', "{", "", b"\xff"])
def test_what_is_no_json_is_an_error(text: Any) -> None:
    with pytest.raises(ValueError):
        loads(text)
