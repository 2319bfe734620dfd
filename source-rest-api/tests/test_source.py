"""The source in one process, with requests-mock in place of a socket."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import source_rest_api
from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer, Status
from hypothesis import example, given, settings
from hypothesis import strategies as st
from source_rest_api.source import SourceRestApi

LOGGER = logging.getLogger("airbyte")
URL = "https://api.example.com/items"
NASTY = [
    "1e5",
    "0x10",
    "1_000",
    "'quoted'",
    '"x"',
    "{{ 1 + 1 }}",
    "True",
    "None",
    "[1]",
    "a\\n",
    "#/definitions",
    "{% raw %}",
]
ascii_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


def config(**more):
    return {"base_url": "https://api.example.com", "streams": [{"name": "items", "path": "/items"}], **more}


def sent_with(requests_mock, credentials):
    requests_mock.get(URL, json=[{"id": 1}])
    given_config = config(credentials=credentials)
    status = SourceRestApi(config=given_config).check(LOGGER, given_config)
    assert status.status is Status.SUCCEEDED, status.message
    return requests_mock.last_request


def nasty(test):
    for secret in NASTY:
        test = example(secret)(test)
    return settings(max_examples=5)(given(ascii_text)(test))


@pytest.fixture(scope="module")
def mocked():
    import requests_mock

    with requests_mock.Mocker() as mocker:
        yield mocker


def test_a_token_reaches_the_header_as_it_is(mocked):
    @nasty
    def run(secret):
        request = sent_with(mocked, {"auth_type": "bearer", "token": secret})
        assert request.headers["Authorization"] == f"Bearer {secret}"

    run()


def test_a_user_and_password_reach_the_header_as_they_are(mocked):
    @nasty
    def run(secret):
        request = sent_with(mocked, {"auth_type": "basic", "username": secret, "password": f"{secret}\U0001f511é"})
        sent = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        assert sent == f"{secret}:{secret}\U0001f511é"

    run()


def test_an_api_key_reaches_the_query_as_it_is(mocked):
    @nasty
    def run(secret):
        key = f"{secret}\U0001f511"
        request = sent_with(mocked, {"auth_type": "api_key", "inject_into": "query", "name": "key", "api_key": key})
        assert parse_qs(urlsplit(request.url).query)["key"] == [key]

    run()


def test_texts_of_the_user_are_never_evaluated(requests_mock):
    stream = {
        "name": "{{ 1 + 1 }}",
        "path": "a:b/{% raw %}",
        "query_params": [{"name": "{{ x }}", "value": "#/definitions"}],
    }
    requests_mock.get("https://api.example.com/a:b/%7B%25%20raw%20%25%7D", json=[{"id": 1}])
    given_config = config(streams=[stream])
    found = SourceRestApi(config=given_config).discover(LOGGER, given_config)
    assert [found_stream.name for found_stream in found.streams] == ["{{ 1 + 1 }}"]
    assert parse_qs(urlsplit(requests_mock.last_request.url).query) == {"{{ x }}": ["#/definitions"]}


def test_other_callers_than_our_command_line_get_ordinary_records(requests_mock):
    requests_mock.get(URL, json=[{"id": 1}, {"id": 2}])
    catalog = ConfiguredAirbyteCatalogSerializer.load(
        {
            "streams": [
                {
                    "stream": {"name": "items", "json_schema": {}, "supported_sync_modes": ["full_refresh"]},
                    "sync_mode": "full_refresh",
                    "destination_sync_mode": "append",
                }
            ]
        }
    )
    source = SourceRestApi(catalog, config(), [])
    messages = list(source.read(LOGGER, config(), catalog, []))
    assert [message.record.data for message in messages if message.record is not None] == [{"id": 1}, {"id": 2}]


def test_the_class_is_found_in_the_package_and_built_without_arguments():
    assert source_rest_api.SourceRestApi().spec(LOGGER).connectionSpecification["title"] == "REST API"
    with pytest.raises(AttributeError):
        source_rest_api.nothing  # noqa: B018


def test_a_manifest_in_the_current_directory_does_not_replace_ours(tmp_path: Path, monkeypatch):
    (tmp_path / "manifest.yaml").write_text("version: 0.1.0\n")
    monkeypatch.chdir(tmp_path)
    assert SourceRestApi().spec(LOGGER).connectionSpecification["title"] == "REST API"


def test_two_hundred_streams_are_built_in_reasonable_time():
    import time

    many = config(streams=[{"name": f"s{n}", "path": f"/s{n}"} for n in range(200)])
    source = SourceRestApi(config=many)
    begun = time.process_time()
    assert len(source.streams(many)) == 200
    assert time.process_time() - begun < 10
