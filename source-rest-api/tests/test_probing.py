"""The pure parts of ``infer``: an address taken apart, and the place of the records in an answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from hypothesis import example, given
from hypothesis import strategies as st
from source_rest_api.body import RecordFinder
from source_rest_api.probing.address import parse_address
from source_rest_api.probing.places import record_place

SECRET = "do-not-print-me-0123456789"


@pytest.mark.parametrize(
    ("url", "base_url", "path", "name"),
    [
        ("https://api.example.com/v1/users", "https://api.example.com/v1", "/users", "users"),
        ("https://api.example.com/api/rest/v2/users/42/orders.json", "https://api.example.com/api/rest/v2",
         "/users/42/orders.json", "orders"),
        ("http://localhost:3000/openOrders", "http://localhost:3000", "/openOrders", "open_orders"),
        ("https://example.com/v1", "https://example.com", "/v1", "records"),
        ("https://example.com", "https://example.com", "/", "records"),
        ("https://example.com/users/42#top", "https://example.com", "/users/42", "users"),
        ("https://example.com/x?id=1&id=2&kind=a", "https://example.com", "/x?id=1&id=2", "x"),
    ],
)  # fmt: skip
def test_a_url_becomes_base_url_path_and_name(url: str, base_url: str, path: str, name: str) -> None:
    found = parse_address(url)
    assert (found.base_url, found.path, found.name) == (base_url, path, name)


def test_parameters_that_page_are_set_aside() -> None:
    found = parse_address("https://x.example/y?page=3&per_page=50&offset=20&cursor=abc&kind=a&from=EUR&page_name=p")
    assert found.params == {"per_page": "50", "kind": "a", "from": "EUR", "page_name": "p"}
    assert (found.pages, found.offsets, found.sizes) == ({"page": "3"}, {"offset": "20"}, {"per_page": "50"})
    assert found.tokens == ["cursor"]


@pytest.mark.parametrize(
    ("url", "headers", "way"),
    [
        (
            f"https://x.example/y?api_key={SECRET}",
            [],
            "--api-key-env VARIABLE --api-key-name 'api_key' --api-key-in query",
        ),
        (f"https://x.example/y?access_token={SECRET}", [], "--api-key-in query"),
        (f"https://me:{SECRET}@x.example/y", [], '"auth_type": "basic"'),
        ("https://x.example/y", [f"Authorization: Bearer {SECRET}"], "--bearer-env VARIABLE"),
        ("https://x.example/y", [f"X-Api-Key: {SECRET}"], "--api-key-env VARIABLE --api-key-name 'X-Api-Key'"),
        ("https://x.example/y", [f"X-Who: Token {SECRET}"], "--api-key-env VARIABLE --api-key-name 'X-Who'"),
        ("https://x.example/y", [f"Cookie: session={SECRET}"], "--api-key-env VARIABLE"),
    ],
)
def test_what_looks_like_a_secret_is_refused_with_the_way_to_give_it(url: str, headers: list[str], way: str) -> None:
    with pytest.raises(AirbyteTracedException) as refused:
        parse_address(url, headers)
    assert way in str(refused.value.message)
    assert SECRET not in str(refused.value.message)


def test_what_is_no_secret_can_be_said_to_be_none() -> None:
    found = parse_address("https://x.example/y?sort_key=name", ["X-Page-Key: a"], public=["sort_key", "X-Page-Key"])
    assert found.params == {"sort_key": "name"}
    assert found.headers == {"X-Page-Key": "a"}


@pytest.mark.parametrize(
    ("url", "headers", "problem"),
    [
        ("users", [], "This is no URL"),
        ("ftp://x.example/y", [], "This is no URL"),
        ("https://", [], "This is no URL"),
        ("https://x.example/", ["Accept"], "A header is given as --header 'Name: value'."),
        ("https://x.example/", [": x"], "A header is given as"),
    ],
)
def test_what_is_no_address_is_said(url: str, headers: list[str], problem: str) -> None:
    with pytest.raises(AirbyteTracedException, match=problem):
        parse_address(url, headers)


WORDS = st.text("abcdefgh-_.~123", min_size=1, max_size=8)


@given(
    st.lists(WORDS, max_size=5), st.dictionaries(WORDS.map(lambda word: f"q{word}"), st.text(max_size=5), max_size=4)
)
def test_nothing_of_a_url_is_lost(segments: list[str], params: dict[str, str]) -> None:
    url = "https://x.example/" + "/".join(segments)
    found = parse_address(f"{url}?{urlencode(params)}", public=list(params))
    assert found.base_url + found.path == url
    assert found.params == params


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["id", "data"]),
                                                                inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(st.lists(JSON, max_size=4) | st.dictionaries(st.text("ab.*01", max_size=3) | st.just("data"), JSON, max_size=5))
@example({"data": {"a\\b": [], '"': {"\x1f": [{"id": 1}]}}})
def test_a_place_that_is_found_can_be_read(body: Any) -> None:
    text = json.dumps(body).encode()
    place = record_place(text)
    assert place.reason
    found = RecordFinder.of(place.value).find(text, is_first=True)
    assert isinstance(found, list)
