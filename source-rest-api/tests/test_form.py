"""The form: what it refuses, and that manifest.yaml describes to Airbyte the very form that is parsed."""

from __future__ import annotations

import json
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from source_rest_api.form import SECRET_FIELDS, Form
from source_rest_api.run import SPEC
from source_rest_api.specification import specification

CONNECTION = json.loads(SPEC.read_text("utf-8"))["connectionSpecification"]
# Names that Airbyte's acceptance tests take for secrets: they must say that they are, or that they are not.
SECRET_NAMES = {"certificate", "credentials", "jwt", "key", "password", "secret", "service_account", "token"}
SECRET_ENDS = ("_token", "_secret", "password", "api_key", "apikey", "secret_key", "private_key", "access_key")
FORBIDDEN = {"not", "anyOf", "allOf", "patternProperties", "if", "then", "else", "prefixItems", "dependencies"}


def listing(**more: Any) -> dict[str, Any]:
    return {"name": "items", "path": "/items", **more}


def changes(**more: Any) -> dict[str, Any]:
    return listing(incremental={"incremental_type": "datetime", "cursor_field": "at", **more})


def child(**more: Any) -> dict[str, Any]:
    return {"name": "orders", "path": "/{{ parent.id }}/o", "parents": [{"stream": "items", "field": "id"}], **more}


def refusal(**changed: Any) -> str:
    with pytest.raises(AirbyteTracedException) as caught:
        Form.parse({"base_url": "https://api.example.com", "streams": [listing()], **changed})
    assert caught.value.failure_type is FailureType.config_error
    assert caught.value.message is not None
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"streams": []}, "streams"),
        ({"streams": [{"name": "x"}]}, "missing required field `path`"),
        ({"streams": [listing(), listing()]}, "Two streams have the name 'items'"),
        ({"streams": [listing(pagination={"pagination_type": "pages"})]}, "pagination"),
        ({"streams": [listing(pagination={"pagination_type": "page", "pag_size": 3})]}, "pag_size"),
        ({"streams": [child(parents=[{"stream": "users", "field": "id"}])]}, "its parent 'users' is no stream"),
        ({"streams": [listing(path="/{{ parent.x }}")]}, "parent.x"),
        ({"streams": [listing(path="/{{ config.x }}")]}, "only {{ parent.<name> }}"),
        ({"streams": [changes(cursor_format="iso")]}, "'iso' is no format"),
        ({"streams": [changes(start="yesterday")]}, "write 2024-01-31"),
        ({"streams": [changes(step="P1D")]}, "needs start, start_param and end_param"),
        ({"check_streams": ["nope"]}, "check_streams"),
        ({"credentials": {"auth_type": "bearer", "token": 12345}}, "credentials.token"),
        ({"num_workers": 99}, "num_workers"),
        ({"max_respons_mb": 3}, "max_respons_mb"),
        ({"streams": [listing(), child(parents=[])]}, "no entry of its parents"),
        ({"streams": [listing(), child(path="/o")]}, "{{ parent.id }} is nowhere"),
        ({"streams": [child(name="a", parents=[{"stream": "b", "field": "id"}]),
                      child(name="b", parents=[{"stream": "a", "field": "id"}])]}, "a circle (a -> b -> a)"),
        ({"streams": [changes(is_ascending=True, step="P1D", start="2024-01-01", start_param="s", end_param="e")]},
         "goes with neither step nor parents"),
        ({"streams": [changes(cursor_field="{{ x }}")]}, "not a template"),
        ({"streams": [listing(body="{}")]}, "a body needs method POST"),
        ({"streams": [listing(method="POST", body="{")]}, "body is no JSON"),
        ({"streams": [listing(pagination={"pagination_type": "page", "inject_into": "body"})]}, "needs method POST"),
        ({"streams": [listing(pagination={"pagination_type": "cursor"})]}, "exactly one of token_path"),
        ({"streams": [changes(newest_first=True, is_ascending=True)]}, "goes with neither is_ascending nor step"),
        ({"rate_limit": {"requests_per_second": 0}}, "rate_limit.requests_per_second"),
        ({"streams": [changes(lookback="2 days")]}, "write P1D, PT6H or PT30M"),
        ({"streams": [listing(timestamps=[{"field": "x", "format": "%Q"}])]}, "'%Q'"),
        ({"streams": [listing(timestamps=[{"field": f, "format": "epoch_s"} for f in ("a", "a.b")])]}, "inside"),
        ({"streams": [listing(pagination={"pagination_type": "offset", "stop_when_shorter": True})]}, "page_size"),
        ({"streams": [listing(pagination={"pagination_type": "page", "stop_on_empty": False})]},
         "without stop_on_empty"),
        ({"streams": [listing(format="csv", record_path="a")]}, "csv has none"),
        ({"streams": [listing(format="columns")]}, "record_path says where the object of columns is"),
        ({"streams": [listing(format="jsonl", pagination={"pagination_type": "next_url"})]}, "jsonl can be paged by"),
        ({"streams": [listing(format="jsonl", pagination={"pagination_type": "page", "total_path": "t"})]},
         "pagination.total_path looks into a JSON answer"),
        ({"streams": [listing(format="csv", errors={"error_when": "body.x"})]}, "errors.error_when looks into"),
        ({"streams": [listing(filter="record.x ==")]}, "filter is no condition"),
        ({"streams": [listing(errors={"error_when": "body ="})]}, "errors.error_when is no condition"),
        ({"errors": {"error_when": "1 +"}}, "Stream 'items': errors.error_when is no condition"),
        ({"streams": [listing(select_fields=["a"], drop_fields=["b"])]}, "exclude each other"),
        ({"streams": [listing(select_fields=["a"], primary_key=["id"])]}, "select_fields leaves out 'id'"),
        ({"streams": [{**changes(), "drop_fields": ["at"]}]}, "drop_fields takes away 'at'"),
        ({"streams": [listing(primary_key=["a.b"], drop_fields=["a"])]}, "drop_fields takes away 'a.b'"),
        ({"streams": [listing(select_fields=["a", "a.b"])]}, "select_fields names 'a.b' twice, or inside"),
        ({"streams": [listing(schema="[]")]}, "schema is no JSON Schema"),
        ({"streams": [listing(schema='{"properties": {"a": 1}}')]}, "schema is no JSON Schema"),
        ({"credentials": {"auth_type": "jwt", "key": "12345", "claims": "[]"}}, "claims is no JSON object"),
        ({"credentials": {"auth_type": "session_token", "login_url": "http://x", "login_body": "12345"}},
         "login_body is no JSON object"),
        ({"credentials": {"auth_type": "api_key", "api_key": "12345", "inject_into": "body"}}, "need method POST"),
        ({"client_certificate": "x"}, "belong together"),
        ({"streams": [listing(), child(parents=[{"stream": "items", "field": "id", "values": ["a"]}])]},
         "either stream and field, or values"),
        ({"streams": [listing(), child(parents=[{"as": "id"}])]}, "either stream and field, or values"),
        ({"streams": [listing(), child(parents=[{"stream": "items"}])]}, "either stream and field, or values"),
        ({"streams": [listing(), child(), child(name="deep", parents=[{"stream": "orders", "field": "n"}])]},
         "two values of its parents have the name 'id'"),
        ({"streams": [listing(), child(incremental={"incremental_type": "counter", "cursor_field": "n",
                                                    "start_param": "s"})]}, "counter does not go with parents"),
        ({"streams": [listing(incremental={"incremental_type": "counter", "cursor_field": "n"})]}, "start_param"),
        ({"streams": [{**changes(), "pagination": {"pagination_type": "page", "max_pages": 3}}]},
         "max_pages would leave"),
        ({"streams": [child(name="deep", path="/{{ parent.n }}",
                            parents=[{"stream": "orders", "field": "n", "as": "n"}]),
                      child(parents=[{"stream": "users", "field": "id"}])]}, "its parent 'users' is no stream"),
        ({"streams": [changes(inject_into="body")]}, "a cursor that goes into the body needs method POST"),
        ({"rate_limit": {"max_wait_seconds": 0}}, "rate_limit.max_wait_seconds"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_with_the_place_and_without_the_value(change: dict[str, Any], words: str) -> None:
    message = refusal(**change)
    assert words in message
    assert "12345" not in message


def test_streams_inherit_and_override() -> None:
    stream = listing(headers=[{"name": "x-a", "value": "2"}], query_params=[{"name": "q", "value": "3"}])
    form = Form.parse(
        {
            "base_url": "https://api.example.com",
            "streams": [stream, listing(name="other", pagination={"pagination_type": "none"})],
            "headers": [{"name": "X-A", "value": "1"}, {"name": "X-B", "value": "1"}],
            "query_params": [{"name": "Q", "value": "1"}],
            "pagination": {"pagination_type": "page"},
            "__injected": {"by": "the platform"},
        }
    )
    first, second = form.streams
    assert [(pair.name, pair.value) for pair in first.headers] == [("X-B", "1"), ("x-a", "2")]
    assert [(pair.name, pair.value) for pair in first.query_params] == [("Q", "1"), ("q", "3")]
    assert type(first.pagination).__name__ == "PageNumbers"
    assert type(second.pagination).__name__ == "NoPages"


def test_spec_json_is_what_the_manifest_says() -> None:
    assert json.loads(SPEC.read_text("utf-8")) == specification()


def test_the_spec_describes_the_form_that_is_parsed() -> None:
    assert _described(CONNECTION) == _parsed(Form)


def test_the_examples_fit_the_spec_and_the_form() -> None:
    examples = sorted((SPEC.parents[1] / "examples").glob("*.json"))
    assert examples
    for path in examples:
        config = json.loads(path.read_bytes())
        jsonschema.validate(config, CONNECTION)
        Form.parse(config)


def test_the_spec_keeps_airbytes_rules_for_forms() -> None:
    jsonschema.Draft7Validator.check_schema(CONNECTION)
    count = 0
    groups = {group["id"] for group in CONNECTION["groups"]}
    for path, schema in _schemas(CONNECTION, "$"):
        count += 1
        assert not FORBIDDEN & schema.keys(), path
        properties = schema.get("properties")
        if (properties and path != "$") or path == "$":
            orders = [field.get("order") for field in properties.values()]
            assert sorted(orders) == list(range(len(orders))), path
            assert schema["additionalProperties"] is True, path
            for name, field in properties.items():
                assert "title" in field, f"{path}.{name}"
                assert isinstance(field.get("type"), str), f"{path}.{name}"
                assert "group" not in field or (path == "$" and field["group"] in groups), f"{path}.{name}"
                if name in SECRET_NAMES or name.endswith(SECRET_ENDS):
                    assert "airbyte_secret" in field, f"{path}.{name}"
        if "oneOf" in schema:
            assert schema["type"] == "object", path
            consts = [_const(branch) for branch in schema["oneOf"]]
            assert len({name for name, _ in consts}) == 1, path
            assert len({value for _, value in consts}) == len(consts), path
    assert count > 50


def test_every_secret_of_the_spec_is_kept_out_of_logs() -> None:
    secret = {
        name
        for _, schema in _schemas(CONNECTION["properties"]["credentials"], "$")
        for name, field in schema.get("properties", {}).items()
        if field.get("airbyte_secret")
    }
    assert secret == {*SECRET_FIELDS, "value"}
    credentials = {
        "auth_type": "oauth_refresh_token", "token_url": "https://x", "client_id": "me",
        "client_secret": "secret-client", "refresh_token": "secret-token",
        "extra_params": [{"name": "x", "value": "secret-pair"}],
    }  # fmt: skip
    config: dict[str, Any] = {
        "base_url": "https://x",
        "streams": [listing(headers=[{"name": "X-A", "value": "secret-own"}])],
        "credentials": credentials,
        "headers": [{"name": "Y", "value": "secret-all"}],
        "client_key": "secret-key",
        "client_certificate": "c",
    }
    assert {"secret-client", "secret-token", "secret-pair", "secret-own", "secret-all", "secret-key"} <= {
        *Form.parse(config).secrets
    }


def _const(branch: dict[str, Any]) -> tuple[str, str]:
    found = [(name, field["const"]) for name, field in branch["properties"].items() if "const" in field]
    assert len(found) == 1
    assert found[0][0] in branch["required"]
    return found[0]


def _schemas(schema: dict[str, Any], path: str) -> Any:
    """Every schema with fields or branches, with its place."""
    yield (
        path,
        {name: value for name, value in schema.items() if name != "properties"}
        | ({"properties": schema["properties"]} if "properties" in schema else {}),
    )
    for name, field in schema.get("properties", {}).items():
        yield from _schemas(field, f"{path}.{name}")
    for number, branch in enumerate(schema.get("oneOf", ())):
        yield from _schemas(branch, f"{path}<{number}>")
    if "items" in schema:
        yield from _schemas(schema["items"], f"{path}[]")


def _described(schema: dict[str, Any]) -> Any:
    """Names, defaults and required fields of a schema."""
    if "oneOf" in schema:
        return {_const(branch)[1]: _described(branch) for branch in schema["oneOf"]}
    if "items" in schema:
        return [_described(schema["items"])]
    if "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: field for name, field in schema["properties"].items() if "const" not in field}
        return {name: (name in required, _described(field)) for name, field in sorted(fields.items())}
    return schema.get("default", "" if schema.get("type") == "string" else None)


def _parsed(type_: Any) -> Any:
    """The same of a struct."""
    structs = [found for found in get_args(type_) if isinstance(found, type) and issubclass(found, msgspec.Struct)]
    if len(structs) > 1:
        return {str(found.__struct_config__.tag): _parsed(found) for found in structs}
    if len(structs) == 1:
        type_ = structs[0]
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return {
            field.encode_name: (field.required, _parsed_field(field))
            for field in sorted(msgspec.structs.fields(type_), key=lambda field: field.encode_name)
        }
    raise TypeError(type_)


def _parsed_field(field: msgspec.structs.FieldInfo) -> Any:
    bare = get_args(field.type)[0] if hasattr(field.type, "__metadata__") else field.type
    if str(bare).startswith("list["):
        inner = get_args(bare)[0]
        is_struct = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
        if is_struct:
            return [_parsed(inner)]
        return [None if int in get_args(inner) else ""]
    if any(isinstance(found, type) and issubclass(found, msgspec.Struct) for found in (bare, *get_args(bare))):
        return _parsed(bare)
    if field.default is msgspec.NODEFAULT:
        return ""
    return field.default
