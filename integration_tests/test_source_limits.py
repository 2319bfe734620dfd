"""Limits of APIs, the network, and input that cannot be used: each ends in bounded time with the right error."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration_tests.rest_api import Api, InProcess, Response, kept, records, serving, statuses, traced

FIVE = [{"id": number} for number in range(1, 6)]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, **more}


def listing(**more):
    return {"name": "items", "path": "/items", **more}


def logs(result):
    return [message["log"]["message"] for message in result.of("LOG")]


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "rule"),
    [
        (429, {"Retry-After": "0"}, {}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}, {}),
        (420, {"X-More-At": "0"}, {"status_codes": [420], "reset_header": "X-More-At"}),
    ],
)
def test_an_answer_that_means_later_is_waited_for(source, status, headers, rule):
    answers = iter([Response(b"{}", status, {**JSON, **headers})])
    with serving(Api({"/items": lambda request: next(answers, FIVE)})) as api:
        result = source.read(form(api, listing(), max_retries=1, rate_limit=rule))
        assert len(api.requests) == 2
    assert records(result) == FIVE


def test_when_nothing_is_left_the_next_request_waits_for_the_reset(source):
    asked = []

    def answer(request):
        asked.append(time.monotonic())
        left = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"} if len(asked) == 1 else {}
        page = int(request.query["page"])
        return Response(json.dumps(FIVE if page == 1 else []).encode(), headers={**JSON, **left})

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(pagination={"pagination_type": "page"})))
    assert records(result) == FIVE
    assert asked[1] - asked[0] >= 0.9


def test_a_limit_that_resets_too_late_ends_the_stream_with_its_state(source):
    rows: list[Any] = [{"id": n, "at": f"{2019 + n}-01-01T00:00:00Z"} for n in range(1, 7)]
    limited: list[bool] = []

    def answer(request):
        since, until = request.query["since"], request.query["until"]
        if since > "2021" and not limited:
            return Response(b'{"message": "quota"}', 429, {**JSON, "Retry-After": "5000"})
        return [row for row in rows if since <= row["at"][:10] <= until]

    cursor = {
        "incremental_type": "datetime", "cursor_field": "at", "start": "2020-01-01", "start_param": "since",
        "end_param": "until", "step": "P1000D", "request_format": "%Y-%m-%d",
    }  # fmt: skip
    with serving(Api({"/items": answer})) as api:
        config = form(api, listing(incremental=cursor), max_retries=5, num_workers=1)
        begun = time.monotonic()
        first = source.read(config)
        assert time.monotonic() - begun < 30
        assert first.exit_code == 1
        (error,) = traced(first)
        assert error["failure_type"] == "transient_error"
        assert "5000 seconds, which is longer than rate_limit.max_wait_seconds (600)" in error["message"]
        assert [row["id"] for row in records(first)] == [1, 2, 3]
        assert len(api.requests) == 2  # the API said "later": no window after it is asked for
        limited.append(True)
        api.requests.clear()
        second = source.read(config, state=kept(first))
        assert min(request.query["since"] for request in api.requests) >= "2022-01-01"
    assert sorted(row["id"] for row in records(second)) == [4, 5, 6]


def test_a_reset_in_an_answer_that_is_no_limit_holds_nobody_back(source):
    broken = iter([Response(b"{}", 502, {**JSON, "X-RateLimit-Reset": "3000", "X-RateLimit-Remaining": "7"})])
    with serving(Api({"/items": lambda request: next(broken, FIVE)})) as api:
        begun = time.monotonic()
        result = source.read(form(api, listing(), max_retries=1))
        assert time.monotonic() - begun < 10
    assert records(result) == FIVE


def test_a_storm_of_limits_ends_after_the_retries(source):
    with serving(Api({"/items": lambda request: Response(b"{}", 429, {**JSON, "Retry-After": "0"})})) as api:
        result = source.read(form(api, listing(), max_retries=2))
        assert len(api.requests) == 3
    (error,) = traced(result)
    assert error["failure_type"] == "transient_error"
    assert "Tried 3 times" in error["message"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_answer_that_drips_ends_in_bounded_time(source, is_chunked):
    with serving(
        Api({"/items": lambda request: Response(b"[" + b" " * 200 + b"]", drip=0.1, is_chunked=is_chunked)})
    ) as api:
        begun = time.monotonic()
        result = source.read(form(api, listing(), timeout_seconds=1))
        assert time.monotonic() - begun < 10
    (error,) = traced(result)
    assert error["failure_type"] == "transient_error"
    assert "too slow" in error["message"]


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_chunked_answer_is_read_whole_and_a_broken_one_is_tried_again(source, is_gzip):
    body = json.dumps(FIVE).encode()
    headers = {**JSON, **({"Content-Encoding": "gzip"} if is_gzip else {})}
    body = gzip.compress(body) if is_gzip else body
    answers = iter([Response(body, 200, headers, is_chunked=True, is_cut=True)])
    whole = Response(body, 200, headers, is_chunked=True)
    with serving(Api({"/items": lambda request: next(answers, whole)})) as api:
        assert records(source.read(form(api, listing(), max_retries=1))) == FIVE
        assert len(api.requests) == 2


# --- network --------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority for one test."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, [], is_authority=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, name):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        found = self._sign(name, key, names, is_authority=False)
        return found.public_bytes(serialization.Encoding.PEM).decode(), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def _sign(self, name, key, names, *, is_authority):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def tls(authority, folder, *, wants_client):
    certificate, key = authority.issue("server")
    path = folder / "server.pem"
    path.write_text(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.pem)
    return context


def test_a_private_authority_is_trusted_by_its_bundle_only(source, tmp_path):
    authority = Authority()
    context = tls(authority, tmp_path, wants_client=False)
    with serving(Api({"/items": lambda request: FIVE}), context) as api:
        assert api.url.startswith("https://")
        result = source.read(form(api, listing(), ca_bundle=authority.pem))
        assert records(result) == FIVE
        (error,) = traced(source.read(form(api, listing())))
    assert "its certificate was not accepted. Check base_url and ca_bundle" in error["message"]
    assert error["failure_type"] == "config_error"


def test_an_api_that_asks_for_a_client_certificate_gets_it(source, tmp_path):
    authority = Authority()
    certificate, key = authority.issue("client")
    context = tls(authority, tmp_path, wants_client=True)
    with serving(Api({"/items": lambda request: FIVE}), context) as api:
        config = form(api, listing(), ca_bundle=authority.pem)
        result = source.read({**config, "client_certificate": certificate, "client_key": key})
        assert records(result) == FIVE
        assert source.read(config).exit_code == 1
    assert key.splitlines()[1].encode() not in result.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ca_bundle": "nothing"}, "ca_bundle holds no certificates in PEM form"),
        ({"client_certificate": "a", "client_key": "b"}, "client_certificate and client_key are no certificate"),
    ],
)
def test_certificates_that_are_none_are_config_errors(source, change, words):
    status = source.run("check", {"base_url": "https://127.0.0.1:9", "streams": [listing()], **change})
    assert words in status.of("CONNECTION_STATUS")[0]["connectionStatus"]["message"]


def test_the_user_agent_is_that_of_the_form(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        source.read(form(api, listing(), user_agent="my-sync/1.0"))
        assert api.requests[0].headers["User-Agent"] == "my-sync/1.0"


def test_a_proxy_of_the_environment_is_used(source, monkeypatch):
    with serving(Api({})) as proxy:
        proxy.default = lambda request: FIVE
        monkeypatch.setenv("http_proxy", proxy.url)
        result = source.read({"base_url": "http://api.invalid/v1", "streams": [listing()], "max_retries": 0})
        assert records(result) == FIVE
        assert [(request.target, request.headers["Host"]) for request in proxy.requests] == [
            ("http://api.invalid/v1/items", "api.invalid")
        ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_hosts_are_refused_if_the_form_says_so(source, host):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        config = form(api, listing(), allow_private_hosts=False)
        config["base_url"] = api.url.replace("127.0.0.1", host)
        (error,) = traced(source.read(config))
        assert api.requests == []
    assert f"{host} is no public address. Set allow_private_hosts" in error["message"]
    assert error["failure_type"] == "config_error"


def test_tokens_are_not_fetched_from_a_private_host_either(source):
    with serving(Api({"/token": lambda request: {"access_token": "x"}})) as api:
        oauth = {"auth_type": "oauth_client_credentials", "token_url": f"{api.url}/token", "client_id": "a",
                 "client_secret": "secret-1"}  # fmt: skip
        config = {"base_url": "http://192.0.2.1", "streams": [listing()], "credentials": oauth, "max_retries": 0}
        (error,) = traced(source.read({**config, "allow_private_hosts": False}))
        assert api.requests == []
    assert "no public address" in error["message"]


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/latest"])
def test_a_redirect_to_a_metadata_service_is_refused(source, target):
    with serving(Api({"/items": lambda request: Response(b"", 302, {"Location": target})})) as api:
        (error,) = traced(source.read(form(api, listing())))
    assert "an address of a cloud's metadata service" in error["message"]


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(source, monkeypatch):
    real = socket.getaddrinfo
    asked = []

    def rebinding(host, port, *args, **kwargs):
        if host != "rebind.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "169.254.169.254", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with serving(Api({"/items": lambda request: FIVE})) as api:
        config = form(api, listing())
        config["base_url"] = api.url.replace("127.0.0.1", "rebind.test")
        assert records(source.read(config)) == FIVE
        assert len(asked) == 1
        (error,) = traced(source.read(config))
    assert "rebind.test is an address of a cloud's metadata service" in error["message"]


def test_a_name_that_does_not_resolve_is_an_error_that_may_pass(source):
    (error,) = traced(source.read({"base_url": "http://nothing.invalid", "streams": [listing()], "max_retries": 0}))
    assert "cannot be reached" in error["message"]
    assert error["failure_type"] == "transient_error"


# --- input that cannot be used --------------------------------------------------------------------------------------

CURSOR = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
COUNTER = {"incremental_type": "counter", "cursor_field": "n", "start_param": "since"}


def stream_state(name, body):
    return [{"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": body}}]


@pytest.mark.parametrize(
    ("incremental", "state", "words"),
    [
        (CURSOR, {"other": "2024-01-01T00:00:00Z"}, "has no value of the cursor 'at'"),
        (CURSOR, {"at": "yesterday"}, "that is none of the format rfc3339"),
        (CURSOR, {"at": {"x": 1}}, "that is none of the format rfc3339"),
        (CURSOR, {"states": {"a": 1}}, "has no list in 'states'"),
        (CURSOR, {"states": [{"partition": {"id": 1}}]}, "no partition with a cursor 'at'"),
        (CURSOR, {"states": [], "state": "x"}, "has no object in 'state'"),
        (COUNTER, {"n": "many"}, "that is none of the format counter"),
    ],
)
def test_a_state_of_the_wrong_shape_is_a_config_error_without_its_value(source, incremental, state, words):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        config = form(api, listing(incremental=incremental))
        result = source.read(config, state=stream_state("items", state))
        assert api.requests == []
    assert result.exit_code == 1
    (error,) = traced(result)
    assert words in error["message"]
    assert error["failure_type"] == "config_error"
    assert "reset the stream" in error["message"]
    assert b"yesterday" not in result.stdout


@pytest.mark.parametrize("state", [{"a": 1}, [1], [{"type": "STREAM"}], [{"type": "STREAM", "stream": 7}]])
def test_a_file_that_holds_no_states_is_a_config_error(source, state):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        result = source.read(form(api, listing()), state=state)
    assert result.exit_code == 1
    (error,) = traced(result)
    assert "is no list of STATE messages" in error["message"]


@pytest.mark.parametrize("state", [{}, {"__ab_no_cursor_state_message": True}])
def test_a_state_that_says_nothing_is_as_good_as_none(source, state):
    with serving(Api({"/items": lambda request: [{"at": "2024-01-01T00:00:00Z"}]})) as api:
        result = source.read(form(api, listing(incremental=CURSOR)), state=stream_state("items", state))
    assert result.exit_code == 0
    assert len(records(result)) == 1


def test_the_run_says_which_streams_failed_and_reads_all_others(source):
    answers = {"/good": lambda request: FIVE, "/bad": lambda request: Response(b'{"message": "no"}', 400)}
    with serving(Api(answers)) as api:
        streams = [{"name": name, "path": f"/{name}"} for name in ("bad", "good", "gone")]
        result = source.read(form(api, *streams))
    assert result.exit_code == 1
    assert records(result) == FIVE
    assert {error["stream_descriptor"]["name"] for error in traced(result)} == {"bad", "gone"}
    assert "Streams that failed: bad, gone. All others were read to their end." in logs(result)
    assert [statuses(result, name)[-1] for name in ("bad", "good", "gone")] == ["INCOMPLETE", "COMPLETE", "INCOMPLETE"]
