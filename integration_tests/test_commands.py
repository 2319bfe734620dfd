"""The commands for people against a real HTTP server: what they ask, what they show, and what they never show."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from source_rest_api import commands

from integration_tests.rest_api import Answer, Api, Request, Response, serving

SECRET = "s3cr3t-t0k3n-9876543210"
ROWS = [
    {"id": n, "name": f"name {n}", "updated_at": f"2024-01-{n:02d}T00:00:00Z", "note": "x" * 80} for n in range(1, 26)
]


def paged(request: Request) -> Any:
    """Ten rows a page, and a token in a well-known place."""
    at = int(request.query.get("cursor", "0"))
    more = at + 10 < len(ROWS)
    return {"data": ROWS[at : at + 10], "meta": {"next_cursor": f"{at + 10}" if more else None}}


def ran(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command, in this process."""
    out = io.StringIO()
    return commands.main(arguments, out), out.getvalue()


def written(folder: Path, config: Mapping[str, Any], name: str = "config.json") -> str:
    (folder / name).write_text(json.dumps(config))
    return str(folder / name)


@pytest.fixture(autouse=True)
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a known width."""
    monkeypatch.setenv("COLUMNS", "100")


def test_preview_shows_requests_detection_records_schema_and_candidates(tmp_path: Path) -> None:
    with serving(Api({"/users": paged})) as api:
        config = {"base_url": api.url, "streams": [{"name": "users", "path": "/users"}]}
        code, said = ran("preview", "--config", written(tmp_path, config))
        said = said.replace(api.url, "<url>").replace("  1.7 kB  ", "  1.6 kB  ")
    assert code == 0
    assert said.splitlines()[:8] == [
        "Requests",
        "  GET <url>/users  200  1.6 kB  10 records",
        "  GET <url>/users?cursor=10  200  1.6 kB  10 records",
        "Pagination: token at 'meta.next_cursor', sent as 'cursor', which the first answer has (detected); "
        "there is more",
        "Records: at 'data' (found: record_path is not set)",
        "",
        "First 10 of 20 records",
        "  id  name     updated_at            note",
    ]
    assert "  1   name 1   2024-01-01T00:00:00Z  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…" in said.splitlines()
    assert "  updated_at  timestamp" in said
    assert "Primary key candidates\n  id: unique and never null in 20 of 20 records\n" in said
    assert "  updated_at: a time (rfc3339) in 20 of 20 records, in ascending order; its name says" in said


def test_preview_as_json_has_everything(tmp_path: Path) -> None:
    with serving(Api({"/users": paged})) as api:
        config = {"base_url": api.url, "streams": [{"name": "users", "path": "/users"}]}
        code, said = ran("preview", "--config", written(tmp_path, config), "--json", "--pages", "9")
    found = json.loads(said)
    assert code == 0
    assert [request["records"] for request in found["requests"]] == [10, 10, 5]
    assert found["records"] == ROWS
    assert found["has_more"] is False
    assert found["json_schema"]["properties"]["id"]["type"] == ["null", "integer"]
    assert found["primary_key_candidates"][0]["fields"] == ["id"]
    assert found["cursor_candidates"][0]["order"] == "ascending"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "credentials",
    [
        {"auth_type": "bearer", "token": SECRET},
        {"auth_type": "api_key", "name": "k", "inject_into": "query", "api_key": SECRET},
        {"auth_type": "basic", "username": "me", "password": SECRET},
    ],
    ids=lambda credentials: credentials["auth_type"],
)
def test_preview_masks_credentials_also_those_that_the_api_echoes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], credentials: dict[str, str], as_json: bool
) -> None:
    def echo(request: Request) -> Any:
        return [{"id": 1, "echo": [dict(request.headers), request.target], SECRET: SECRET}]

    with serving(Api({"/echo": echo})) as api:
        config = {
            "base_url": api.url,
            "credentials": credentials,
            "query_params": [{"name": "signature", "value": "unlisted-secret"}],
            "streams": [{"name": "echo", "path": "/echo", "drop_fields": ["echo.1"]}],
        }
        code, said = ran("preview", "--config", written(tmp_path, config), *(["--json"] if as_json else []))
        assert any(SECRET in str(request.headers) + request.target for request in api.requests) or "basic" in str(
            config
        )
    assert code == 0
    assert "****" in said
    assert "signature=****" in said
    assert SECRET not in said + capsys.readouterr().err
    assert "bWU6czNjcjN0" not in said  # the beginning of HTTP Basic's text


def test_preview_reads_children_and_shows_the_requests_of_their_parents(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {"/teams": lambda _: [{"id": 7}, {"id": 8}], "/teams/7/people": lambda _: [{"id": 1}],
               "/teams/8/people": lambda _: [{"id": 2}]}  # fmt: skip
    with serving(Api(answers)) as api:
        people = {"name": "people", "path": "/teams/{{ parent.team }}/people", "add_parent_fields": True,
                  "parents": [{"stream": "teams", "field": "id", "as": "team"}]}  # fmt: skip
        streams = [{"name": "teams", "path": "/teams"}, people]
        config = {"base_url": api.url, "streams": streams}
        code, said = ran("preview", "--config", written(tmp_path, config), "--stream", "people", "--pages", "1")
        assert [request.path for request in api.requests] == ["/teams", "/teams/7/people"]
    assert code == 0
    assert "/teams  200" in said


def test_preview_shows_what_came_before_an_error_and_ends_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(request: Request) -> Any:
        return paged(request) if "cursor" not in request.query else Response(b"<html>no", 200)

    with serving(Api({"/users": broken})) as api:
        config = {"base_url": api.url, "streams": [{"name": "users", "path": "/users"}]}
        code, said = ran("preview", "--config", written(tmp_path, config))
    assert code == 1
    assert "First 10 of 10 records" in said
    assert "is no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("streams", "arguments", "problem"),
    [
        (["a", "b"], [], "--stream is needed. Streams: a, b."),
        (["a"], ["--stream", "c"], "'c' is no stream. Streams: a."),
        (["a"], ["--bearer-env", "NO_SUCH_VARIABLE"], "The environment variable NO_SUCH_VARIABLE is not set."),
        (["a", "a"], [], "Two streams have the name 'a': give each its own."),
    ],
)
def test_preview_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], streams: list[str], arguments: list[str], problem: str
) -> None:
    config = {"base_url": "http://127.0.0.1:9", "streams": [{"name": name, "path": "/"} for name in streams]}
    assert ran("preview", "--config", written(tmp_path, config), *arguments) == (1, "")
    assert capsys.readouterr().err == f"error: {problem}\n"


def test_preview_writes_a_rotated_refresh_token_into_the_file_and_never_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def token(request: Request) -> Any:
        assert f"refresh_token={SECRET}" in request.body.decode()
        return {"access_token": "access-1234567", "refresh_token": "rotated-1234567", "expires_in": 3600}

    with serving(Api({"/token": token, "/users": lambda _: ROWS})) as api:
        credentials = {"auth_type": "oauth_refresh_token", "token_url": f"{api.url}/token", "client_id": "me",
                       "refresh_token": SECRET}  # fmt: skip
        config = {"base_url": api.url, "credentials": credentials, "streams": [{"name": "users", "path": "/users"}]}
        file = written(tmp_path, config)
        code, said = ran("preview", "--config", file)
    assert code == 0
    assert f"POST {api.url}/token  200" in said
    kept = config | {"credentials": credentials | {"refresh_token": "rotated-1234567"}}
    assert json.loads(Path(file).read_text()) == kept
    shown = said + capsys.readouterr().err
    assert not [secret for secret in (SECRET, "rotated-1234567", "access-1234567") if secret in shown]


MANIFEST = (Path(__file__).with_name("manifests") / "oauth.yaml").read_text("utf-8")


def test_validate_shows_the_streams_of_a_manifest_and_what_its_spec_asks_for(tmp_path: Path) -> None:
    settings = json.dumps({"base": "https://api.example.com", "credentials": {"client_secret": SECRET}})
    file = written(tmp_path, {"manifest": MANIFEST, "manifest_config": settings})
    assert ran("validate", file) == (
        0,
        f"{file} is good: a manifest of version 6.0.0 with 1 stream.\n"
        "  accounts\n"
        "  manifest_config.base (string, required)\n"
        "  manifest_config.credentials (object, required)\n",
    )


def test_validate_refuses_a_manifest_whose_settings_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ran("validate", written(tmp_path, {"manifest": MANIFEST, "manifest_config": "{}"}))
    assert code == 1
    assert said == ""
    assert "base" in capsys.readouterr().err


def numbered(request: Request) -> Any:
    """Ten rows a page."""
    at = (int(request.query.get("page", "1")) - 1) * 10
    return {"items": ROWS[at : at + 10]}


NUMBERED = """
version: 6.0.0
type: DeclarativeSource
check: {type: CheckStream, stream_names: [users]}
spec:
  type: Spec
  connection_specification:
    type: object
    properties: {base: {type: string}, api_key: {type: string, airbyte_secret: true}}
streams:
  - &users
    type: DeclarativeStream
    name: users
    retriever:
      type: SimpleRetriever
      requester:
        type: HttpRequester
        url_base: "{{ config['base'] }}"
        path: /users
        request_headers: {X-Key: "{{ config['api_key'] }}"}
      record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: [items]}}
      paginator:
        type: DefaultPaginator
        pagination_strategy: {type: PageIncrement, page_size: 10, start_from_page: 1}
        page_token_option: {type: RequestOption, inject_into: request_parameter, field_name: page}
    schema_loader: {type: InlineSchemaLoader, schema: {type: object}}
"""


def of_manifest(base: str, manifest: str = NUMBERED, **config: Any) -> dict[str, Any]:
    return {"manifest": manifest, "manifest_config": json.dumps({"base": base, **config})}


@pytest.mark.parametrize(("pages", "records", "more"), [(1, 10, True), (2, 20, True), (9, 25, False)])
def test_preview_shows_a_stream_of_a_manifest(tmp_path: Path, pages: int, records: int, more: bool) -> None:
    with serving(Api({"/users": numbered})) as api:
        file = written(tmp_path, of_manifest(api.url, api_key=SECRET))
        code, said = ran("preview", "--config", file, "--pages", str(pages))
        assert len(api.requests) <= pages + 1
        code_of_json, found = ran("preview", "--config", file, "--pages", str(pages), "--json")
    assert (code, code_of_json) == (0, 0)
    assert said.splitlines()[:2] == ["Requests", f"  GET {api.url}/users  200"]
    words = "there is more" if more else "all pages were read"
    assert f"Pagination and records: as the manifest says; {words}\n" in said
    assert f"First 10 of {records} records" in said
    assert "  updated_at  timestamp" in said
    assert json.loads(found)["records"] == ROWS[:records]
    assert json.loads(found)["has_more"] is more


def test_preview_ends_a_manifest_that_asks_and_asks_and_finds_nothing(tmp_path: Path) -> None:
    manifest = NUMBERED.replace("page_size: 10, ", "")
    empty: dict[str, Answer] = {"/users": lambda request: {"items": [], "more": request.query}}
    with serving(Api(empty)) as api:
        code, said = ran("preview", "--config", written(tmp_path, of_manifest(api.url, manifest, api_key=SECRET)))
        assert len(api.requests) <= 50
    assert code == 0
    assert "Cursor candidates\n  none\n" in said


def test_preview_of_a_manifest_ends_with_the_error_of_its_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Api({"/users": lambda _: Response(b"<html>a-value-nobody-may-see", 200)})) as api:
        code, said = ran("preview", "--config", written(tmp_path, of_manifest(api.url, api_key=SECRET)))
    assert (code, said) == (1, f"Requests\n  GET {api.url}/users  200\n")
    error = capsys.readouterr().err
    assert "is no JSON. Check the manifest's url and decoder." in error
    assert "a-value-nobody-may-see" not in error


def test_preview_of_a_manifest_keeps_a_rotated_token_in_its_file_and_never_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def token(request: Request) -> Any:
        assert SECRET in request.body.decode()
        return {"access_token": "access-1234567", "refresh_token": "rotated-1234567", "expires_in": 3600}

    with serving(Api({"/token": token, "/accounts": lambda _: ROWS})) as api:
        credentials = {"client_id": "me", "client_secret": "client-1234567", "refresh_token": SECRET,
                       "access_token": "", "token_expiry_date": "2020-01-01T00:00:00Z"}  # fmt: skip
        file = written(tmp_path, of_manifest(api.url, MANIFEST, credentials=credentials))
        code, said = ran("preview", "--config", file)
    assert code == 0, capsys.readouterr().err
    assert "First 10 of 25 records" in said
    kept = json.loads(json.loads(Path(file).read_text())["manifest_config"])
    assert kept["credentials"]["refresh_token"] == "rotated-1234567"
    shown = said + capsys.readouterr().err
    assert not [text for text in (SECRET, "rotated-1234567", "access-1234567", "client-1234567") if text in shown]


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("c.json", ["--stream", "teams"], "'teams' is no stream. Streams: users."),
        (
            "c.json",
            ["--bearer-env", "PATH"],
            "The credentials of a manifest are in its manifest_config: give none here.",
        ),
        ("two.json", [], "--stream is needed. Streams: users, others."),
        ("oauth.yaml", [], "a new one is written into the file: give it as JSON."),
    ],
)
def test_preview_of_a_manifest_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str], problem: str
) -> None:
    two = NUMBERED + "  - {<<: *users, name: others}\n"
    config = of_manifest(
        "http://127.0.0.1:9", MANIFEST if name == "oauth.yaml" else two if name == "two.json" else NUMBERED
    )
    assert ran("preview", "--config", written(tmp_path, config, name), *arguments)[0] == 1
    assert problem in capsys.readouterr().err
