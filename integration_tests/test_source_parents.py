"""Streams that are read once per value of others: depth, several fields and parents, lists, states, request lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration_tests.rest_api import Api, InProcess, Response, kept, records, serving, traced

NASTY = ["a/b", "a?b=c", "a b", "%2F", "é\U0001f511", "{{ parent.id }}", "..a", 'a"b', 9007199254740993, 10**30]


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, "num_workers": 2, **more}


def logs(result):
    return [message["log"]["message"] for message in result.of("LOG")]


def by_user(**more):
    return {"parents": [{"stream": "users", "field": "id", "as": "user"}], **more}


USERS = {"name": "users", "path": "/users"}


def test_values_reach_path_query_header_and_body_as_the_api_wrote_them(source):
    child = by_user(
        name="found",
        path="/u/{{ parent.user }}/x",
        method="POST",
        query_params=[{"name": "q", "value": "<{{ parent.user }}>"}],
        headers=[{"name": "X-User", "value": "{{ parent.user }}"}],
        body='{"quoted": "{{ parent.user }}"}',
        add_parent_fields=True,
    )
    rows = [{"id": value} for value in NASTY]
    with serving(Api({"/users": lambda request: rows})) as api:
        api.default = lambda request: [{"n": 1}]
        result = source.read(form(api, USERS, child), "found")
        sent = {request.json["quoted"]: request for request in api.requests if request.method == "POST"}
    assert result.exit_code == 0
    assert sorted(map(str, (row["user"] for row in records(result)))) == sorted(map(str, NASTY))
    assert sorted(map(str, sent)) == sorted(map(str, NASTY))
    for value in map(str, NASTY):
        request = sent[value]
        assert request.query["q"] == f"<{value}>"
        assert request.headers["X-User"].encode("latin-1").decode() == value
    paths = [request.path for request in sent.values()]
    assert "/u/a%2Fb/x" in paths
    assert "/u/a%3Fb%3Dc/x" in paths
    assert "/u/a%20b/x" in paths
    assert "/u/%252F/x" in paths
    assert "/u/%C3%A9%F0%9F%94%91/x" in paths
    assert "/u/%7B%7B%20parent.id%20%7D%7D/x" in paths
    assert "/u/9007199254740993/x" in paths
    assert f"/u/{10**30}/x" in paths


def test_null_and_missing_values_have_no_children_and_a_repeat_is_read_once(source):
    rows = [{"id": 1}, {"id": None}, {}, {"id": 1}, {"id": "1"}, {"id": 2}]
    child = by_user(name="orders", path="/o/{{ parent.user }}")
    with serving(
        Api({"/users": lambda request: rows, "/o/1": lambda request: [{"n": 1}], "/o/2": lambda r: []})
    ) as api:
        result = source.read(form(api, USERS, child), "orders")
        # The number 1 and the text "1" are different values, though one URL.
        assert sorted(request.path for request in api.requests) == ["/o/1", "/o/1", "/o/2", "/users"]
    assert result.exit_code == 0
    assert "2 of 6 records have no id: no children" in logs(result)


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}])
def test_a_value_that_is_neither_text_nor_integer_is_an_error(source, value):
    child = by_user(name="orders", path="/o/{{ parent.user }}")
    with serving(Api({"/users": lambda request: [{"id": value}]})) as api:
        result = source.read(form(api, USERS, child), "orders")
    assert "children need a text or an integer" in traced(result)[0]["message"]


@pytest.mark.parametrize("value", [".", ".."])
def test_a_value_that_would_lead_to_another_path_is_an_error(source, value):
    child = by_user(name="orders", path="/o/{{ parent.user }}/x")
    with serving(Api({"/users": lambda request: [{"id": value}]})) as api:
        result = source.read(form(api, USERS, child), "orders")
        assert [request.path for request in api.requests] == ["/users"]
    assert "would lead to another path" in traced(result)[0]["message"]


def test_a_body_takes_numbers_outside_of_quotes(source):
    child = by_user(name="found", path="/search", method="POST", body='{"user": {{ parent.user }}}')
    with serving(Api({"/users": lambda request: [{"id": 7}], "/search": lambda request: [request.json]})) as api:
        assert records(source.read(form(api, USERS, child), "found")) == [{"user": 7}]


def test_parents_go_to_any_depth_and_names_from_above_come_along(source):
    def level(name, path, above=None, own=None, **more) -> dict[str, Any]:
        parents = {"parents": [{"stream": above, "field": "id", "as": own}]} if above else {}
        return {"name": name, "path": path, **parents, **more}

    streams = [
        level("orgs", "/orgs"),
        level("teams", "/orgs/{{ parent.org }}/teams", "orgs", "org"),
        level("users", "/orgs/{{ parent.org }}/teams/{{ parent.team }}/users", "teams", "team"),
        level(
            "logins", "/{{ parent.org }}/{{ parent.team }}/{{ parent.user }}", "users", "user", add_parent_fields=True
        ),
    ]
    answers: dict[str, Any] = {"/orgs": lambda request: [{"id": "a"}, {"id": "b"}]}
    for org in "ab":
        answers[f"/orgs/{org}/teams"] = lambda request: [{"id": 1}, {"id": 2}]  # the same ids in both
        for team in (1, 2):
            answers[f"/orgs/{org}/teams/{team}/users"] = lambda request: [{"id": "u"}]
            answers[f"/{org}/{team}/u"] = lambda request: [{"n": 1}]
    with serving(Api(answers)) as api:
        result = source.read(form(api, *streams), "logins")
    assert result.exit_code == 0
    found = sorted((row["org"], row["team"], row["user"]) for row in records(result))
    assert found == [(org, team, "u") for org in "ab" for team in (1, 2)]


def test_several_fields_of_one_parent_come_from_the_same_record(source):
    rows = [{"id": 1, "org": {"name": "x"}}, {"id": 2, "org": {"name": "y"}}, {"id": 3, "org": None}]
    child = {
        "name": "orders",
        "path": "/{{ parent.org }}/{{ parent.user }}",
        "parents": [
            {"stream": "users", "field": "id", "as": "user"},
            {"stream": "users", "field": "org.name", "as": "org"},
        ],
    }
    with serving(Api({"/users": lambda r: rows, "/x/1": lambda r: [{"n": 1}], "/y/2": lambda r: [{"n": 2}]})) as api:
        result = source.read(form(api, USERS, child), "orders")
        assert len(api.of("/users")) == 1
    assert result.exit_code == 0
    assert sorted(row["n"] for row in records(result)) == [1, 2]


def test_several_parents_and_lists_are_combined_each_with_each(source):
    child = {
        "name": "orders",
        "path": "/{{ parent.region }}/{{ parent.user }}/{{ parent.item }}",
        "parents": [
            {"stream": "users", "field": "id", "as": "user"},
            {"stream": "items", "field": "id", "as": "item"},
            {"values": ["eu", "us"], "as": "region"},
        ],
        "add_parent_fields": True,
    }
    answers = {"/users": lambda r: [{"id": 1}, {"id": 2}], "/items": lambda r: [{"id": "i"}, {"id": "j"}]}
    with serving(Api(answers)) as api:
        api.default = lambda request: [{"n": 1}]
        result = source.read(form(api, USERS, {"name": "items", "path": "/items"}, child), "orders")
    found = {(row["region"], row["user"], row["item"]) for row in records(result)}
    assert found == {(region, user, item) for region in ("eu", "us") for user in (1, 2) for item in "ij"}
    assert len(records(result)) == 8


def test_a_list_alone_is_a_parent_too(source):
    child = {"name": "orders", "path": "/{{ parent.id }}", "parents": [{"values": ["a", "b", "a"]}]}
    with serving(Api({"/a": lambda r: [{"n": 1}], "/b": lambda r: [{"n": 2}]})) as api:
        assert sorted(row["n"] for row in records(source.read(form(api, child)))) == [1, 2]
        assert len(api.requests) == 2


def test_a_parents_filter_counts_for_its_children(source):
    users = {**USERS, "filter": "record.active"}
    rows = [{"id": 1, "active": True}, {"id": 2, "active": False}]
    child = by_user(name="orders", path="/o/{{ parent.user }}")
    with serving(Api({"/users": lambda request: rows, "/o/1": lambda request: [{"n": 1}]})) as api:
        result = source.read(form(api, users, child), "orders")
        assert result.exit_code == 0
        assert [request.path for request in api.requests] == ["/users", "/o/1"]


def test_a_failing_parent_fails_its_children_and_no_other_stream(source):
    child = by_user(name="orders", path="/o/{{ parent.user }}")
    answers = {"/users": lambda request: Response(b'{"message": "no"}', 403), "/free": lambda request: [{"n": 1}]}
    with serving(Api(answers)) as api:
        result = source.read(form(api, USERS, child, {"name": "free", "path": "/free"}), "orders", "free")
    assert result.exit_code == 1
    assert records(result, "free") == [{"n": 1}]
    (error,) = traced(result)
    assert error["stream_descriptor"]["name"] == "orders"
    assert "answered 403: no" in error["message"]


# --- states ---------------------------------------------------------------------------------------------------------


def change(number, moment):
    return {"id": number, "at": moment}


def changes(depth):
    cursor = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
    orgs = {"name": "orgs", "path": "/orgs"}
    users: dict[str, Any] = {"name": "users", "path": "/users"}
    if depth == 2:
        users = {
            **users,
            "path": "/{{ parent.org }}/users",
            "parents": [{"stream": "orgs", "field": "id", "as": "org"}],
        }
    return [orgs, users, by_user(name="changes", path="/c/{{ parent.user }}", incremental=cursor)]


@pytest.mark.parametrize("depth", [1, 2])
def test_each_combination_has_its_own_state_also_in_the_nested_form_of_earlier_versions(source, depth):
    rows = {"1": [change(1, "2024-01-01T00:00:00Z")], "2": [change(2, "2024-05-01T00:00:00Z")]}
    answers: dict[str, Any] = {f"/c/{n}": (lambda request, n=n: rows[n]) for n in rows}
    answers |= {"/orgs": lambda r: [{"id": "a"}], "/users": lambda r: [{"id": 1}, {"id": 2}]}
    answers["/a/users"] = answers["/users"]
    with serving(Api(answers)) as api:
        config = form(api, *changes(depth))
        first = source.read(config, "changes")
        assert len(records(first)) == 2
        rows["1"].append(change(3, "2024-02-01T00:00:00Z"))
        state = kept(first)
        if depth == 2:
            for entry in (
                *state[0]["stream"]["stream_state"]["states"],
                *state[0]["stream"]["stream_state"]["boundary"],
            ):
                assert entry["partition"].pop("org") == "a"
                entry["partition"]["parent_slice"] = {"org": "a", "parent_slice": {}}
        second = source.read(config, "changes", state=state)
        assert [row["id"] for row in records(second)] == [3]
        asked = {path: api.of(path)[-1].query["since"] for path in ("/c/1", "/c/2")}
        assert asked == {"/c/1": "2024-01-01T00:00:00Z", "/c/2": "2024-05-01T00:00:00Z"}
        assert records(source.read(config, "changes", state=kept(second))) == []


def test_states_of_children_leave_at_the_promised_pace(source):
    def rows(request):
        at = int(request.path.rpartition("/")[2])
        return [change(at * 3000 + n, f"2024-01-01T00:{n // 60:02d}:{n % 60:02d}Z") for n in range(3000)]

    with serving(Api({"/users": lambda request: [{"id": n} for n in range(12)]})) as api:
        api.default = rows
        result = source.read(form(api, *changes(1), num_workers=1), "changes")
    since, gaps = 0, []
    for message in result.messages:
        since += message["type"] == "RECORD"
        if message["type"] == "STATE":
            gaps.append(since)
            since = 0
    assert sum(gaps) == 36_000
    assert max(gaps) <= 10_000 + 2 * 3000  # a state waits for the end of a partition, and one more may be on its way
    partitions = [len(m["state"]["stream"]["stream_state"].get("states", ())) for m in result.of("STATE")]
    assert partitions == sorted(partitions)


def test_discover_samples_children_by_at_most_five_parents(source):
    child = by_user(name="orders", path="/o/{{ parent.user }}")
    with serving(Api({"/users": lambda request: [{"id": n} for n in range(50)]})) as api:
        api.default = lambda request: [{"n": json.loads(request.path.rpartition("/")[2])}]
        result = source.run("discover", form(api, USERS, child))
        assert len([request for request in api.requests if request.path.startswith("/o/")]) == 5
    streams = {stream["name"]: stream for stream in result.of("CATALOG")[0]["catalog"]["streams"]}
    assert streams["orders"]["json_schema"]["properties"] == {"n": {"type": ["null", "integer"]}}
