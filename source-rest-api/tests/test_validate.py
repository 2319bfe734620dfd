"""``validate``: each problem by its line and column, all at once; a good file by what will be requested."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from hypothesis import given
from hypothesis import strategies as st
from source_rest_api import commands
from source_rest_api.form import Form
from source_rest_api.form_problems import problems_of

EXAMPLES = Path(__file__).parents[1] / "examples"
SECRET = "s3cr3t-t0k3n"


def said_of(tmp_path: Path, text: str, name: str = "config.json") -> tuple[int, list[str]]:
    """Exit code and lines of ``validate``, with the file's name alone."""
    file = tmp_path / name
    file.write_text(text, "utf-8")
    out = io.StringIO()
    code = commands.main(["validate", str(file)], out)
    return code, out.getvalue().replace(f"{tmp_path}/", "").splitlines()


def test_all_problems_of_types_come_at_once_each_with_its_line_and_column(tmp_path: Path) -> None:
    text = """{
	"base_url": "ftp://x",
  "streams": [
    {"name": "a", "path": "/a", "method": "PUT", "primarykey": ["id"], "path": "/b"},
    {"name": "b", "pagination": {"pagination_type": "pages"}},
    {"name": "c", "path": 3, "pagination": {"pagination_type": "page", "page_size": 0}}
  ],
  "num_workers": "4"
}
"""  # JSON may be indented by tabs, which YAML may not
    code, lines = said_of(tmp_path, text)
    assert code == 1
    assert lines == [
        "config.json:2:2: base_url: expected `str` matching regex '^https?://[^\\\\s/]'.",
        "config.json:4:33: streams[0].method: one of GET, POST is wanted.",
        "config.json:4:50: streams[0].primarykey is no setting: did you mean 'primary_key'?",
        "config.json:4:72: path stands twice here; the last one counts.",
        "config.json:5:5: streams[1]: path is missing.",
        "config.json:5:34: streams[1].pagination: pagination_type is one of auto, none, page, offset, cursor, "
        "link_header, next_url.",
        "config.json:6:19: streams[2].path: expected `str`, got `int`.",
        "config.json:6:72: streams[2].pagination.page_size: expected `int` >= 1.",
        "config.json:8:3: num_workers: expected `int`, got `str`.",
        "9 problems. Nothing was asked of the API.",
    ]


def test_broken_rules_come_at_once_at_the_setting_that_they_speak_of(tmp_path: Path) -> None:
    text = """
base_url: https://x
pagination: {pagination_type: offset, stop_on_empty: false}
check_streams: [a, nobody]
streams:
- name: a
  path: /a
  body: "{}"
- name: b
  path: /b/{{ parent.nope }}/{{ parent.a }}
  pagination: {pagination_type: none}
  parents:
  - {stream: a, field: id, as: a}
  - {stream: z, field: id, as: zz}
  incremental: {incremental_type: datetime, cursor_field: x, start: 2024-01-01, lookback: 1 day}
- {name: c, path: /c, pagination: {pagination_type: none}, timestamps: [{field: at, format: never}]}
"""
    code, lines = said_of(tmp_path, text, "config.yaml")
    assert code == 1
    found = {line.split(": ")[0].removeprefix("config.yaml:") for line in lines[:-1]}
    assert found == {"3:39", "4:20", "8:3", "10:3", "14:6", "15:81", "16:85"}, lines


def test_a_circle_of_parents_is_said_for_every_stream_in_it(tmp_path: Path) -> None:
    streams = [
        {"name": one, "path": "/{{ parent.id }}", "parents": [{"stream": other, "field": "id"}]}
        for one, other in (("a", "b"), ("b", "a"))
    ]
    code, lines = said_of(tmp_path, json.dumps({"base_url": "https://x", "streams": streams}))
    assert code == 1
    assert ["circle" in line for line in lines] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ('{"base_url": "x",\n "streams" []}', "c.json", "c.json:2:12: this is no JSON: Expecting ':' delimiter."),
        ("base_url: [\n", "c.yaml", "c.yaml:2:1: this is no YAML: "),
        ("[]", "c.json", "c.json:1:1: a configuration is an object with base_url and streams."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_parsed_is_an_error_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, name: str, problem: str
) -> None:
    code, lines = said_of(tmp_path, text, name)
    assert (code, lines) == (1, [])
    assert capsys.readouterr().err.replace(f"{tmp_path}/", "").startswith(f"error: {problem}")


def test_a_file_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["validate", "/no/such/file.json"], io.StringIO()) == 1
    assert capsys.readouterr().err == "error: /no/such/file.json cannot be read: No such file or directory.\n"


def test_a_good_file_is_described_stream_by_stream_without_secrets(tmp_path: Path) -> None:
    config = {
        "base_url": "https://api.example.com/v1",
        "credentials": {"auth_type": "bearer", "token": SECRET},
        "headers": [{"name": "X-Tenant", "value": SECRET}],
        "query_params": [{"name": "api_key", "value": SECRET}, {"name": "lang", "value": "en"}],
        "streams": [
            {"name": "users", "path": "/users", "primary_key": ["id"],
             "pagination": {"pagination_type": "page", "size_param": "per_page", "page_size": 100}},
            {"name": "orders", "path": "/users/{{ parent.user }}/orders", "pagination": {"pagination_type": "none"},
             "parents": [{"stream": "users", "field": "id", "as": "user"}],
             "incremental": {"incremental_type": "datetime", "cursor_field": "updated_at", "start": "2024-01-01",
                             "start_param": "since", "request_format": "epoch_s"}},
        ],
    }  # fmt: skip
    code, lines = said_of(tmp_path, json.dumps(config))
    assert code == 0
    assert lines == [
        "config.json is good: 2 streams.",
        "https://api.example.com/v1, a token in the header Authorization (Bearer ****)",
        "  users   GET https://api.example.com/v1/users?api_key=****&lang=en&page=1&per_page=100; headers "
        "X-Tenant=****; pages: page counts up from 1, until an empty page; key: id",
        "  orders  GET https://api.example.com/v1/users/{{ parent.user }}/orders?api_key=****&lang=en&since=1704067200;"
        " headers X-Tenant=****; pages: a single one; cursor: updated_at, since from the second sync on; for each "
        "record of users (id as user)",
    ]


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_example_is_good(example: Path) -> None:
    out = io.StringIO()
    assert commands.main(["validate", str(example)], out) == 0, out.getvalue()


GOOD = json.loads((EXAMPLES / "github.json").read_text("utf-8"))
WORDS = st.sampled_from(
    ["", "a", "GET", "page", "none", "id", "repos", "rfc3339", "https://x", "{{ parent.org }}", "{}"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_validate_finds_problems_exactly_where_a_sync_would_refuse_the_form(data: st.DataObject) -> None:
    config = json.loads(json.dumps(GOOD))
    for _ in range(data.draw(st.integers(0, 3))):
        _spoil(config, data)
    try:
        Form.parse(config)
    except AirbyteTracedException:
        assert problems_of(config)
    else:
        assert not problems_of(config)


def _spoil(config: dict[str, Any], data: st.DataObject) -> None:
    """One thing somewhere in it becomes another, goes, or joins."""
    place: Any = config
    while True:
        choices = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not choices:
            return
        key = data.draw(st.sampled_from(choices))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    match data.draw(st.sampled_from(["other", "gone", "more"])):
        case "gone":
            del place[key]
        case "more" if isinstance(place, dict):
            place[data.draw(st.sampled_from(["name", "path", "schema", "step", "max_pages", "as", "primarykey"]))] = (
                data.draw(VALUES)
            )
        case _:
            place[key] = data.draw(VALUES)


@pytest.mark.parametrize("name", ["api_key", "access-token", "auth", "Cookie", "filter[token]"])
def test_a_parameter_that_is_named_like_a_secret_is_not_shown(tmp_path: Path, name: str) -> None:
    form = {"base_url": "https://api.example.com", "streams": [{"name": "users", "path": "/users"}],
            "query_params": [{"name": name, "value": "s3cr3t"}]}  # fmt: skip
    code, lines = said_of(tmp_path, json.dumps(form))
    assert code == 0
    assert "s3cr3t" not in "".join(lines)
    assert any(f"{name}=****" in line for line in lines)
