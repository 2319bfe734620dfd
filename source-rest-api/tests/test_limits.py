"""Rate limits as APIs state them, addresses that may be reached, forms of a secret: the pure parts."""

from __future__ import annotations

import base64
import json
from email.utils import formatdate
from ipaddress import ip_address
from urllib.parse import quote, quote_plus

import pytest
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict
from source_rest_api.form import Form, RateLimit
from source_rest_api.limits import Gate, is_limit, remaining, reset, wait_asked
from source_rest_api.masking import SHORTEST, forms_of
from source_rest_api.network import refuse, session_of, unwrapped

NOW = 1_700_000_000.0
OWN = RateLimit(status_codes=[429, 503], remaining_header="X-Left", reset_header="X-More-At")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0.1),
        ({"Retry-After": "0"}, 0.1),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "5"}, 5),
        ({"X-RateLimit-Reset": str(int(NOW) + 30)}, 30),
        ({"X-RateLimit-Reset": str((int(NOW) + 30) * 1000)}, 30),
        ({"X-Rate-Limit-Reset": "12"}, 12),
        ({"RateLimit-Reset": "12"}, 12),
        ({"RateLimit": "limit=100, remaining=0, reset=42"}, 42),
        ({"RateLimit": '"default";r=0;t=43'}, 43),
        ({"X-More-At": "44", "X-RateLimit-Reset": "1"}, 44),
        ({"X-More-At": formatdate(NOW + 45, usegmt=True)}, 45),
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"X-RateLimit-Reset": "3000", "X-RateLimit-Remaining": "12"}, None),
    ],
)
def test_how_long_to_wait_is_read_from_headers(headers, seconds):
    assert wait_asked(CaseInsensitiveDict(headers), OWN, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({"X-RateLimit-Remaining": "3"}, 3),
        ({"X-Left": "0", "X-RateLimit-Remaining": "3"}, 0),
        ({"RateLimit-Remaining": "2"}, 2),
        ({"RateLimit": '"a";r=9;t=1'}, 9),
        ({"RateLimit": "limit=1, remaining=8, reset=1"}, 8),
        ({"X-RateLimit-Remaining": "many"}, None),
        ({}, None),
    ],
)
def test_what_is_left_is_read_from_headers(headers, left):
    assert remaining(CaseInsensitiveDict(headers), OWN) == left


@pytest.mark.parametrize(
    ("status", "headers", "is_one"),
    [(429, {}, True), (503, {}, True), (403, {}, False), (403, {"Retry-After": "1"}, True),
     (403, {"X-RateLimit-Remaining": "0"}, True), (403, {"X-RateLimit-Remaining": "1"}, False), (400, {}, False)],
)  # fmt: skip
def test_which_answers_mean_later(status, headers, is_one):
    assert is_limit(status, CaseInsensitiveDict(headers), OWN) is is_one


def test_all_wait_at_the_gate_until_the_api_allows_more():
    clock = [NOW]
    slept: list[float] = []
    gate = Gate(RateLimit(max_wait_seconds=60), now=lambda: clock[0], sleep=slept.append)
    gate.learn({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"})
    assert gate.wait("s") == 0
    gate.learn({"X-RateLimit-Remaining": "0"})
    assert gate.wait("s") == 0
    gate.learn({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    clock[0] += 10
    assert gate.wait("s") == 20
    assert slept == [20]
    clock[0] += 21
    assert gate.wait("s") == 0
    gate.learn({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "61"})
    with pytest.raises(AirbyteTracedException, match="longer than rate_limit"):
        gate.wait("s")


@given(st.text(min_size=SHORTEST), st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_is_found_in_every_form_and_at_every_place_of_a_base64_text(secret, before, after):
    if not secret.isascii():
        try:
            secret.encode()
        except UnicodeEncodeError:
            return
    forms = forms_of(secret)
    for text in (secret, json.dumps(secret), quote(secret), quote_plus(secret), quote(secret, safe="")):
        assert any(form in text for form in forms)
    whole = before + secret.encode() + after
    for text in (base64.b64encode(whole).decode(), base64.urlsafe_b64encode(whole).decode()):
        assert any(form in text for form in forms)


@pytest.mark.parametrize(
    ("address", "inner"),
    [("::ffff:10.0.0.1", "10.0.0.1"), ("64:ff9b::a00:1", "10.0.0.1"), ("2002:a00:1::1", "10.0.0.1"),
     ("8.8.8.8", "8.8.8.8"), ("2606:4700::1111", "2606:4700::1111")],
)  # fmt: skip
def test_addresses_are_unwrapped(address, inner):
    assert unwrapped(ip_address(address)) == ip_address(inner)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254",
     "100.100.100.200", "168.63.129.16"],
)  # fmt: skip
@pytest.mark.parametrize("allow_private", [True, False])
def test_metadata_services_are_never_reached(address, allow_private):
    with pytest.raises(AirbyteTracedException, match="metadata service"):
        refuse(ip_address(address), "x", allow_private=allow_private)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "::1", "fc00::1", "fe80::1",
     "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"],
)  # fmt: skip
def test_private_addresses_are_reached_only_if_the_form_allows_it(address):
    refuse(ip_address(address), "x", allow_private=True)
    with pytest.raises(AirbyteTracedException, match="allow_private_hosts"):
        refuse(ip_address(address), "x", allow_private=False)


def test_in_airbyte_cloud_private_addresses_are_never_reached(monkeypatch):
    monkeypatch.setenv("DEPLOYMENT_MODE", "cloud")
    form = Form.parse({"base_url": "https://x", "streams": [{"name": "a", "path": "/"}], "allow_private_hosts": True})
    with session_of(form) as session, pytest.raises(AirbyteTracedException, match="no public address"):
        session.get("http://127.0.0.1:9")


def test_public_addresses_are_reached():
    for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"):
        refuse(ip_address(address), "x", allow_private=False)


def test_a_reset_that_is_not_stated_is_not_guessed():
    assert reset({}, OWN, NOW) is None
