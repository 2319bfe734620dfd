"""``from-openapi`` on documents of others: which of their lists become streams; a server made of one is read."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from source_rest_api import commands
from source_rest_api.form import Form
from source_rest_api.openapi.document import Document

from integration_tests.rest_api import Api, InProcess, Request, Response, serving, statuses

DOCUMENTS = Path(__file__).with_name("openapi_documents")
NAMES = ("asana", "discord", "forgejo")
LEAST_SHARE = 0.8


def text_of(name: str) -> bytes:
    return gzip.decompress((DOCUMENTS / f"{name}.json.gz").read_bytes())


def converted(
    folder: Path, document: bytes | Mapping[str, Any], *options: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and report, by the command."""
    source, report, out = folder / "document", folder / "report.json", io.StringIO()
    source.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    code = commands.main(["from-openapi", str(source), "--json", "--report", str(report), *options], out)
    assert code == 0
    return json.loads(out.getvalue()), json.loads(report.read_text("utf-8"))


def refused(folder: Path, document: bytes | str, capsys: pytest.CaptureFixture[str]) -> str:
    if isinstance(document, bytes):
        (folder / "document").write_bytes(document)
        document = str(folder / "document")
    assert commands.main(["from-openapi", document], io.StringIO()) == 1
    return capsys.readouterr().err


# --- an own reading of the documents, which shares nothing with the product -------------------------------------------


class Reading:
    """Just enough of OpenAPI to find lists and to make answers."""

    def __init__(self, root: Mapping[str, Any]):
        self.root = root
        self.numbers = itertools.count(1)

    def at(self, node: Any) -> dict[str, Any]:
        for _ in range(20):
            if not isinstance(node, dict) or "$ref" not in node:
                break
            target: Any = self.root
            for part in node["$ref"][2:].split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        return node if isinstance(node, dict) else {}

    def kind(self, node: Any) -> str:
        found = self.at(node)
        kind = found.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), None)
        return kind or ("array" if "items" in found else "object" if self.fields(found) else "")

    def fields(self, node: Any, depth: int = 0) -> dict[str, Any]:
        found = self.at(node)
        fields = dict(found.get("properties") or {})
        for part in (found.get("allOf") or ()) if depth < 20 else ():
            fields |= self.fields(part, depth + 1)
        return fields

    def is_object(self, node: Any) -> bool:
        found = self.at(node)
        return self.kind(found) == "object" or any(map(self.is_object, found.get("oneOf") or found.get("anyOf") or ()))

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Path and schema of each GET that answers JSON."""
        for path, item in self.root["paths"].items():
            answers = item.get("get", {}).get("responses") or {}
            good = [self.at(answer) for code, answer in answers.items() if str(code).startswith("2")]
            for answer in good[:1]:
                media = answer.get("content") or {}
                schema = next((form.get("schema") for name, form in media.items() if "json" in name), None)
                if schema := answer.get("schema") or schema:
                    yield path, self.at(schema)

    def lists(self) -> dict[str, str]:
        """By path, where the list is: GETs that answer an array, or an object with exactly one array of objects."""
        found = {}
        for path, schema in self.answers():
            if self.kind(schema) == "array":
                found[path] = "."
                continue
            arrays = [
                name
                for name, field in self.fields(schema).items()
                if self.kind(field) == "array" and self.is_object(self.at(field).get("items"))
            ]
            if len(arrays) == 1:
                found[path] = arrays[0]
        return found

    def value(self, node: Any, depth: int = 0) -> Any:
        """Something that fits a schema. Numbers and texts differ each time."""
        found = self.at(node)
        if found.get("enum"):
            return found["enum"][0]
        match self.kind(found):
            case "array":
                return [self.value(found.get("items"), depth + 1) for _ in range(2)] if depth < 3 else []
            case "object":
                fields = self.fields(found).items() if depth < 4 else ()
                return {name: self.value(field, depth + 1) for name, field in fields}
            case "integer" | "number":
                return next(self.numbers)
            case "boolean":
                return True
            case _:
                return "2024-05-06T07:08:09Z" if found.get("format") == "date-time" else f"text-{next(self.numbers)}"


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_lists_become_streams_with_the_right_record_path_and_nothing_else_does(name: str, tmp_path: Path):
    text = text_of(name)
    config, report = converted(tmp_path, text)
    wanted = Reading(json.loads(text)).lists()
    paths = {stream["name"]: stream["path"] for stream in report["streams"]}
    found = {paths[stream["name"]]: stream["record_path"] for stream in config["streams"]}
    right = [path for path, place in wanted.items() if found.get(path) == place]
    print(f"{name}: {len(right)} of {len(wanted)} lists, {report['operations']} operations")
    assert len(wanted) > 40
    assert len(right) >= LEAST_SHARE * len(wanted)
    assert found.items() <= wanted.items(), "a stream is no list, or has another record path"
    reasons = {skipped["path"]: skipped["reason"] for skipped in report["skipped"]}
    assert all(reasons[path] for path in wanted.keys() - found.keys())


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_valid(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, _ = converted(tmp_path, text_of(name))
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = io.StringIO()
    assert commands.main(["validate", str(tmp_path / "config.json")], out) == 0
    assert f"is good: {len(config['streams'])} streams." in out.getvalue()


def test_a_server_made_of_a_document_is_read_by_the_configuration_made_of_it(tmp_path: Path):
    text = text_of("forgejo")
    config, report = converted(tmp_path, text)
    document = json.loads(text)
    reading = Reading(document)
    routes = [
        (re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(document["basePath"] + path))), path.count("{"), schema)
        for path, schema in reading.answers()
    ]

    def answer(request: Request) -> Any:
        fitting = [(count, schema) for route, count, schema in routes if route.fullmatch(request.path)]
        if not fitting:
            return Response(b"{}", 404)
        schema = min(fitting, key=lambda route: route[0])[1]
        if request.query.get("page", "1") == "1":
            return reading.value(schema)
        empty: dict[str, Any] = {
            name: [] for name, field in reading.fields(schema).items() if reading.kind(field) == "array"
        }
        return [] if reading.kind(schema) == "array" else empty

    has_gaps = {stream["name"] for stream in report["streams"] if stream["gaps"]}
    with serving(Api({}, default=answer)) as api:
        config["base_url"] = f"{api.url}{document['basePath']}"
        config["credentials"] = {"auth_type": "bearer", "token": "a-token-of-nobody"}
        above = {stream["name"]: {parent.get("stream") for parent in stream.get("parents", [])} - {None}
                 for stream in config["streams"]}  # fmt: skip
        while more := {name for name, parents in above.items() if parents & has_gaps} - has_gaps:
            has_gaps |= more
        names = [name for name in above if name not in has_gaps]
        assert len(names) > 100
        result = InProcess(tmp_path).read(config, *names)
    assert {name: statuses(result, name)[-1] for name in names} == dict.fromkeys(names, "COMPLETE")
    seen = {message["record"]["stream"] for message in result.of("RECORD")}
    assert seen == set(names)


def small(**more: Any) -> dict[str, Any]:
    rows = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}}
    answer = {"200": {"content": {"application/json": {"schema": rows}}}}
    paths = {"/things": {"get": {"responses": answer}}, "/things/{thing_id}/parts": {"get": {"responses": answer}}}
    return {"openapi": "3.0.0", "info": {"title": "Small"}, "servers": [{"url": "https://api.example.com/v1"}],
            "paths": paths, **more}  # fmt: skip


def test_a_list_below_another_is_read_once_for_each_of_its_records(tmp_path: Path):
    config, _ = converted(tmp_path, small())
    parts = Form.parse(config).stream("things_parts")
    assert parts.path == "/things/{{ parent.thing_id }}/parts"
    assert [(parent.stream, parent.field, parent.as_name) for parent in parts.parents] == [("things", "id", "thing_id")]


@pytest.mark.parametrize(
    ("collection", "parameter", "fields", "field"),
    [
        # In a repository issues are asked for by their number; the id is another issue's number, or nobody's.
        ("issues", "index", {"id": "integer", "number": "integer"}, "number"),
        ("namespaces", "namespace", {"metadata.uid": "string", "metadata.name": "string"}, "metadata.name"),
        ("teams", "team_slug", {"id": "integer", "name": "string", "slug": "string"}, "slug"),
        ("repos", "repo", {"id": "integer", "name": "string"}, "name"),
        ("customers", "customer", {"uid": "string", "name": "string", "id": "string"}, "id"),
        ("accounts", "AccountSid", {"name": "string", "sid": "string"}, "sid"),
    ],
)
def test_a_parent_gives_the_field_that_its_api_asks_by(
    collection: str, parameter: str, fields: dict[str, str], field: str, tmp_path: Path
):
    document = small()
    item: dict[str, Any] = {"type": "object", "properties": {}}
    for path, kind in fields.items():
        *above, name = path.split(".")
        place = item
        for key in above:
            place = place["properties"].setdefault(key, {"type": "object", "properties": {}})
        place["properties"][name] = {"type": kind}
    kind = {name: kind for path, kind in fields.items() for name in (path, path.rpartition(".")[2])}[field]
    asked = {"name": parameter, "in": "path", "required": True, "schema": {"type": kind}}
    schema = {"type": "array", "items": item}
    answer = {"responses": {"200": {"content": {"application/json": {"schema": schema}}}}}
    below = {"parameters": [asked], "get": document["paths"]["/things"]["get"]}
    document["paths"] = {f"/{collection}": {"get": answer}, f"/{collection}/{{{parameter}}}/parts": below}
    config, _ = converted(tmp_path, document)
    assert config["streams"][1]["parents"][0] | {"as": ""} == {"stream": collection, "field": field, "as": ""}


def test_servers_of_operations_are_that_of_the_configuration_or_another_one(tmp_path: Path):
    document = small()
    del document["servers"]
    for item in document["paths"].values():
        item["servers"] = [{"url": "https://things.example.com"}]
    # An upload to another host does not make the list at the same path another host's.
    document["paths"]["/things"]["post"] = {"servers": [{"url": "https://uploads.example.com"}], "responses": {}}
    document["paths"]["/files"] = {
        "get": {**document["paths"]["/things"]["get"], "servers": [{"url": "https://files.example.com"}]}
    }
    config, report = converted(tmp_path, document)
    assert config["base_url"] == "https://things.example.com"
    assert [stream["name"] for stream in config["streams"]] == ["things", "things_parts"]
    (skipped,) = report["skipped"]
    assert skipped["path"] == "/files"
    assert "https://files.example.com" in skipped["reason"]


def test_a_pattern_takes_what_matches_and_its_parents(tmp_path: Path):
    config, _ = converted(tmp_path, text_of("forgejo"), "--only", "/repos/{owner}/{repo}/branches")
    names = [stream["name"] for stream in config["streams"]]
    assert "repos_branches" in names
    assert len(names) < 5


def test_the_report_says_what_is_missing_and_why_everything_is_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "d.json").write_bytes(text_of("discord"))
    assert commands.main(["from-openapi", str(tmp_path / "d.json")], io.StringIO()) == 0
    said = capsys.readouterr().err
    assert "credentials.api_key: your BotToken" in said
    assert "(now <BotToken>)" in said
    assert "the answer is the list itself" in said
    assert "answers one object, without a list of objects" in said
    assert "no list of the document gives its values" in said


def test_yaml_means_what_json_means(tmp_path: Path):
    import yaml

    text = yaml.safe_dump({**small(), "components": {"x": ["no", "false_positive", "2024-01-01"]}}).encode()
    assert Document.parse(text.replace(b"'", b"")).root["components"]["x"] == ["no", "false_positive", "2024-01-01"]
    assert converted(tmp_path, text)[0] == converted(tmp_path, small())[0]


def test_what_is_no_document_is_refused_with_what_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "neither JSON nor YAML" in refused(tmp_path, b"\x00<html>{", capsys)
    assert "no OpenAPI 3 or Swagger 2 document" in refused(tmp_path, b'{"swagger": "1.2"}', capsys)
    assert "has no paths" in refused(tmp_path, b'{"openapi": "3.0.0"}', capsys)
    assert "No operation of the document is a list" in refused(tmp_path, b'{"openapi": "3.0.0", "paths": {}}', capsys)
    assert "cannot be read" in refused(tmp_path, str(tmp_path / "missing"), capsys)


def test_references_into_other_documents_are_not_followed(tmp_path: Path):
    answer = {"200": {"content": {"application/json": {"schema": {"$ref": "http://127.0.0.1:9/other.json#/x"}}}}}
    document = small()
    document["paths"]["/elsewhere"] = {"get": {"responses": answer}}
    _, report = converted(tmp_path, document)
    (skipped,) = [skipped for skipped in report["skipped"] if skipped["path"] == "/elsewhere"]
    assert "another document" in skipped["reason"]


def test_a_document_is_read_from_its_address_and_its_server_is_relative_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    document = small(servers=[{"url": "/v2"}])
    with serving(Api({"/docs/openapi.json": lambda request: document})) as api:
        out = io.StringIO()
        assert commands.main(["from-openapi", f"{api.url}/docs/openapi.json"], out) == 0
        assert json.loads(out.getvalue())["base_url"] == f"{api.url}/v2"
        assert "answered 404" in refused(tmp_path, f"{api.url}/missing?token=abcdef", capsys)
    assert "abcdef" not in refused(tmp_path, f"{api.url}/docs/openapi.json?token=abcdef", capsys)
    assert refused(tmp_path, "http://169.254.169.254/latest/meta-data", capsys).startswith("error: ")
