"""Who asks: refresh tokens that rotate, session tokens, signed tokens, keys in bodies; and what an error may show."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import parse_qsl, quote

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from integration_tests.rest_api import Api, InProcess, Response, Source, records, serving, traced

FIVE = [{"id": number} for number in range(1, 6)]
SECRET = 's3cr3t/t0k3n"9876+é'


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, **more}


def listing(**more):
    return {"name": "items", "path": "/items", **more}


def guarded(token, *, header="Authorization", prefix="Bearer "):
    def items(request):
        return FIVE if request.headers.get(header) == prefix + token else Response(b'{"message": "who?"}', 401)

    return items


def posted(request):
    return dict(parse_qsl(request.body.decode()))


# --- refresh tokens -------------------------------------------------------------------------------------------------


def refreshing(api, **more):
    return {"auth_type": "oauth_refresh_token", "token_url": f"{api.url}/token", "client_id": "me",
            "client_secret": "client-secret-1", "refresh_token": "refresh-token-0", **more}  # fmt: skip


def test_a_rotated_refresh_token_is_written_back_and_used_from_then_on(tmp_path):
    valid = ["refresh-token-0"]
    issued = []

    def token(request):
        given = posted(request)
        if given["refresh_token"] != valid[-1]:
            return Response(b'{"error": "invalid_grant", "error_description": "it was used"}', 400)
        valid.append(f"refresh-token-{len(valid)}")
        issued.append(f"access-token-{len(valid)}")
        return {"access_token": issued[-1], "refresh_token": valid[-1], "expires_in": 3600}

    def items(request):
        # The API ends the first token before its time.
        ok = len(issued) > 1 and request.headers["Authorization"] == f"Bearer {issued[-1]}"
        return FIVE if ok else Response(b'{"message": "expired"}', 401)

    source = Source(tmp_path)
    with serving(Api({"/token": token, "/items": items})) as api:
        config = form(api, listing(), credentials=refreshing(api, scopes="a b"), max_retries=1)
        result = source.read(config)
        assert records(result) == FIVE
        assert posted(api.of("/token")[0]) == {
            "grant_type": "refresh_token", "refresh_token": "refresh-token-0", "scope": "a b", "client_id": "me",
            "client_secret": "client-secret-1",
        }  # fmt: skip
        written = [message["control"]["connectorConfig"]["config"] for message in result.of("CONTROL")]
        assert [config["credentials"]["refresh_token"] for config in written] == ["refresh-token-1", "refresh-token-2"]
        assert {**written[-1], "credentials": 0} == {**config, "credentials": 0}
        # The platform gives back what was written; the old token is worth nothing.
        again = InProcess(tmp_path)
        assert records(again.read(written[-1])) == FIVE
        assert "it was used" in traced(again.read(config))[0]["message"]
    others = b"".join(line for line in result.stdout.splitlines() if b'"CONTROL"' not in line)
    assert b"refresh-token" not in others
    assert b"access-token" not in others


def test_a_token_that_is_refused_is_a_config_error_also_without_retries(source):
    answers = {"/token": lambda request: {"access_token": "access-token-1"}, "/items": guarded("other")}
    with serving(Api(answers)) as api:
        (error,) = traced(source.read(form(api, listing(), credentials=refreshing(api))))
    assert error["failure_type"] == "config_error"
    assert "answered 401: who?. Check credentials" in error["message"]


def test_a_token_that_is_refused_after_its_renewal_is_a_config_error(source):
    answers = {"/token": lambda request: {"access_token": "access-token-1"}, "/items": guarded("other")}
    with serving(Api(answers)) as api:
        (error,) = traced(source.read(form(api, listing(), credentials=refreshing(api), max_retries=3)))
        assert len(api.of("/items")) == 2
        assert len(api.of("/token")) == 2
    assert error["failure_type"] == "config_error"
    assert "answered 401: who?. A new token was refused too. Check credentials" in error["message"]


# --- sessions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["header", "query"])
def test_a_login_gives_a_token_that_is_renewed_when_it_is_refused(source, where):
    tokens = ["session-1", "session-2"]
    logins = []

    def login(request):
        logins.append(request)
        return {"auth": {"token": tokens[len(logins) - 1]}}

    def items(request):
        given = request.headers.get("X-Session") if where == "header" else request.query.get("X-Session")
        return FIVE if given == ("Session session-2" if where == "header" else "session-2") else Response(b"{}", 401)

    with serving(Api({"/login": login, "/items": items})) as api:
        credentials = {
            "auth_type": "session_token", "login_url": f"{api.url}/login", "token_path": "auth.token",
            "login_body": json.dumps({"user": "me", "password": SECRET}), "name": "X-Session", "inject_into": where,
            "prefix": "Session",
        }  # fmt: skip
        result = source.read(form(api, listing(), credentials=credentials, max_retries=1))
        assert records(result) == FIVE
    assert [(login.method, login.json["password"]) for login in logins] == [("POST", SECRET)] * 2
    assert b"session-1" not in result.stdout


def test_a_login_without_a_token_and_one_that_is_refused_name_what_to_change(source):
    answers = {"/login": lambda request: {"id": 7}, "/no": lambda request: Response(b'{"error": "bad password"}', 403)}
    with serving(Api(answers)) as api:
        login = {"auth_type": "session_token", "login_url": f"{api.url}/login"}
        (error,) = traced(source.read(form(api, listing(), credentials=login)))
        assert "without a text at 'token'. Check token_path" in error["message"]
        refused = {"auth_type": "session_token", "login_url": f"{api.url}/no"}
        (error,) = traced(source.read(form(api, listing(), credentials=refused)))
        assert "answered 403: bad password. Check credentials" in error["message"]


# --- signed tokens --------------------------------------------------------------------------------------------------


def keys(algorithm):
    if algorithm.startswith("HS"):
        return (
            "a shared secret of more than thirty-two bytes in all",
            "a shared secret of more than thirty-two bytes in all",
        )
    private = (
        rsa.generate_private_key(65537, 2048) if algorithm.startswith("RS") else ec.generate_private_key(ec.SECP256R1())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return pem, private.public_key()


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_signed_tokens_carry_the_claims_and_can_be_verified(source, algorithm):
    key, public = keys(algorithm)
    with serving(Api({"/items": lambda request: FIVE})) as api:
        credentials = {
            "auth_type": "jwt", "algorithm": algorithm, "key": key, "key_id": "k1", "claims": '{"iss": "me"}',
            "lifetime_seconds": 600,
        }  # fmt: skip
        assert records(source.read(form(api, listing(), credentials=credentials))) == FIVE
        token = api.requests[0].headers["Authorization"].removeprefix("Bearer ")
    found = jwt.decode(token, public, algorithms=[algorithm])
    assert found["iss"] == "me"
    assert found["exp"] - found["iat"] == 600
    assert abs(found["iat"] - time.time()) < 60
    assert jwt.get_unverified_header(token)["kid"] == "k1"


def test_a_key_that_is_none_for_the_algorithm_is_a_config_error_without_the_key(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        result = source.run("check", form(api, listing(), credentials={"auth_type": "jwt", "key": "no PEM at all"}))
        assert api.requests == []
    assert "no key for RS256" in result.of("CONNECTION_STATUS")[0]["connectionStatus"]["message"]
    assert b"no PEM at all" not in result.stdout


# --- keys in bodies -------------------------------------------------------------------------------------------------


def test_an_api_key_may_be_a_field_of_the_body(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        credentials = {"auth_type": "api_key", "inject_into": "body", "name": "auth.key", "api_key": SECRET}
        stream = listing(method="POST", body='{"q": "x"}')
        assert records(source.read(form(api, stream, credentials=credentials))) == FIVE
        assert api.requests[0].json == {"q": "x", "auth": {"key": SECRET}}


def test_a_body_with_a_key_is_not_sent_on_to_another_host(source):
    with serving(Api({"/items": lambda request: FIVE})) as other:
        moved = Response(b"", 307, {"Location": f"{other.url}/items"})
        with serving(Api({"/items": lambda request: moved})) as api:
            credentials = {"auth_type": "api_key", "inject_into": "body", "name": "key", "api_key": SECRET}
            (error,) = traced(source.read(form(api, listing(method="POST"), credentials=credentials)))
        assert "redirects a request with a body to another host" in error["message"]
        assert other.requests == []


# --- what an error may show -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"u:{SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"user:{SECRET}!".encode()).decode(),
    ],
    ids=["raw", "json", "json-utf8", "url", "url-all", "base64", "basic", "base64-inside"],
)
@pytest.mark.parametrize("before", ["", "x" * 280])
def test_secrets_in_an_apis_words_are_masked_in_every_form_also_where_the_text_is_cut(source, echo, before):
    body = json.dumps({"message": f"{before} you sent {echo} to us"}).encode()
    with serving(Api({"/items": lambda request: Response(body, 400)})) as api:
        result = source.read(
            form(api, listing(), credentials={"auth_type": "basic", "username": "u", "password": SECRET})
        )
    (error,) = traced(result)
    assert f"GET {api.url}/items answered 400: " in error["message"]
    for part in (echo[2:-6], echo[8:13], SECRET[3:9]):  # a cut in the middle must not leave the half of it
        assert part.encode() not in result.stdout
    assert "**" in error["message"]


def test_an_error_of_a_child_shows_its_path_and_no_value_of_a_parent(source):
    users = {"name": "users", "path": "/users"}
    child = {"name": "orders", "path": "/users/{{ parent.mail }}/orders?x=1",
             "parents": [{"stream": "users", "field": "mail", "as": "mail"}]}  # fmt: skip
    with serving(Api({"/users": lambda request: [{"mail": "jane@example.com"}]})) as api:
        result = source.read(form(api, users, child), "orders")
    (error,) = traced(result)
    assert f"GET {api.url}/users/{{{{ parent.mail }}}}/orders" in error["message"]
    assert b"jane" not in result.stdout
