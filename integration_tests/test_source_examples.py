"""The example configurations against stand-ins that page, limit and fail as those APIs document."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from integration_tests.rest_api import Api, InProcess, Request, Response, kept, records, serving, traced

EXAMPLES = Path(__file__).parents[1] / "source-rest-api" / "examples"
JSON = {"Content-Type": "application/json"}
TESTED_ELSEWHERE = {"countries", "usgs"}  # by `make demo`, with the data of those APIs


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def example(name: str, api: Api) -> Any:
    """The example, with the stand-in's address in place of the API's, and small pages."""
    text = (EXAMPLES / f"{name}.json").read_text("utf-8")
    config = json.loads(text)
    config["base_url"] = f"{api.url}/v"
    config["max_retries"] = 1
    for pages in filter(None, [config.get("pagination"), *(stream.get("pagination") for stream in config["streams"])]):
        if pages["pagination_type"] != "none":
            pages["page_size"] = 2
    if "token_url" in config.get("credentials", {}):
        config["credentials"]["token_url"] = f"{api.url}/token"
    return config


def signed(answer: Callable[[Request], Any], token: str) -> Callable[[Request], Any]:
    def guard(request: Request) -> Any:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return Response(b'{"message": "Bad credentials"}', 401, JSON)
        return answer(request)

    return guard


def ids(result: Any, stream: str) -> list[Any]:
    return sorted(record["id"] for record in records(result, stream))


def test_every_example_has_a_stand_in():
    named = {path.stem for path in EXAMPLES.glob("*.json")}
    assert named - TESTED_ELSEWHERE == {"github", "stripe", "slack", "notion", "hubspot", "microsoft-graph", "gitlab",
                                        "pokeapi", "coingecko"}  # fmt: skip


def test_github(source):
    issues = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 6)]

    def linked(rows: list[Any]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            page, size = int(request.query.get("page", "1")), int(request.query["per_page"])
            since = request.query.get("since", "")
            found = [row for row in rows if row.get("updated_at", "") >= since]
            more = len(found) > page * size
            url = f"{api.url}{request.path}?per_page={size}&page={page + 1}" + (f"&since={since}" if since else "")
            link = {"Link": f'<{url}>; rel="next", <{url}>; rel="last"'} if more else {}
            return Response(json.dumps(found[(page - 1) * size : page * size]).encode(), headers={**JSON, **link})

        return answer

    repos = [{"id": 1, "name": "arrow"}, {"id": 2, "name": "spark"}, {"id": 3, "name": "gone"}]
    answers = {"/v/orgs/apache/repos": linked(repos), "/v/repos/apache/arrow/issues": linked(issues),
               "/v/repos/apache/spark/issues": linked([])}  # fmt: skip
    answers["/v/repos/apache/gone/issues"] = lambda request: Response(b'{"message": "Issues are disabled"}', 410)
    with serving(Api({path: signed(answer, "<personal access token>") for path, answer in answers.items()})) as api:
        config = example("github", api)
        first = source.read(config)
        assert first.exit_code == 0
        assert ids(first, "repos") == [1, 2, 3]
        assert ids(first, "issues") == [1, 2, 3, 4, 5]
        assert {(row["org"], row["repo"]) for row in records(first, "issues")} == {("apache", "arrow")}
        issues.append({"id": 6, "updated_at": "2024-02-01T00:00:00Z"})
        assert ids(source.read(config, state=kept(first)), "issues") == [6]


def test_stripe(source):
    charges: list[Any] = [
        {"id": f"ch_{n}", "created": 1_700_000_000 + n * 100_000} for n in range(5, 0, -1)
    ]  # newest first

    def answer(request: Request) -> Any:
        found = [row for row in charges if row["created"] >= int(request.query.get("created[gte]", "0"))]
        after = request.query.get("starting_after")
        begin = [row["id"] for row in found].index(after) + 1 if after else 0
        end = begin + int(request.query["limit"])
        return {"object": "list", "data": found[begin:end], "has_more": end < len(found)}

    answers = {"/v/charges": answer, "/v/customers": lambda request: {"data": [], "has_more": False}}
    with serving(Api({path: signed(answer, "<secret key>") for path, answer in answers.items()})) as api:
        config = example("stripe", api)
        first = source.read(config)
        assert ids(first, "charges") == [f"ch_{n}" for n in range(1, 6)]
        assert len(api.of("/v/charges")) == 3
        assert records(first, "charges")[0]["created"].endswith("Z")
        charges.insert(0, {"id": "ch_6", "created": 1_700_600_000})
        second = source.read(config, state=kept(first))
        assert ids(second, "charges") == ["ch_6"]


def test_slack(source):
    messages = {"C1": [{"ts": "1700000000.000100"}, {"ts": "1700000000.000200"}], "C2": [{"ts": "1700000001.000100"}]}

    def channels(request: Request) -> Any:
        rows = [{"id": "C1"}, {"id": "C2"}]
        at = int(request.query.get("cursor", "0"))
        following = str(at + 1) if at + 1 < len(rows) else ""
        return {"ok": True, "channels": rows[at : at + 1], "response_metadata": {"next_cursor": following}}

    def history(request: Request) -> Any:
        rows = [row for row in messages[request.query["channel"]] if row["ts"] >= request.query.get("oldest", "")]
        return {"ok": True, "messages": rows[::-1], "has_more": False}

    answers: dict[str, Any] = {"/v/conversations.list": channels, "/v/conversations.history": history}
    with serving(Api(answers)) as api:
        config = example("slack", api)
        first = source.read(config)
        found = sorted((row["channel"], row["ts"]) for row in records(first, "messages"))
        assert found == [(channel, row["ts"]) for channel, rows in sorted(messages.items()) for row in rows]
        messages["C1"].append({"ts": "1700000000.000300"})
        second = source.read(config, "messages", state=kept(first))
        assert [row["ts"] for row in records(second)] == ["1700000000.000300"]
        api.answers["/v/conversations.list"] = lambda request: {"ok": False, "error": "invalid_auth"}
        (error,) = traced(source.read(config, "channels"))
    assert "answered 200 with an error: invalid_auth" in error["message"]


def test_notion(source):
    def paged(rows: list[Any]) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            at = int(request.json.get("start_cursor", "0"))
            end = at + request.json["page_size"]
            more = end < len(rows)
            return {"results": rows[at:end], "has_more": more, "next_cursor": str(end) if more else None}

        return answer

    answers = {"/v/search": paged([{"id": "d1"}, {"id": "d2"}, {"id": "d3"}]), "/v/databases/d3/query": paged([])}
    answers |= {f"/v/databases/d{n}/query": paged([{"id": f"p{n}{m}"} for m in range(3)]) for n in (1, 2)}
    with serving(Api(answers)) as api:
        result = source.read(example("notion", api))
        assert {request.json["filter"]["value"] for request in api.of("/v/search")} == {"database"}
        assert {request.headers["Notion-Version"] for request in api.requests} == {"2022-06-28"}
    assert ids(result, "databases") == ["d1", "d2", "d3"]
    assert ids(result, "pages") == ["p10", "p11", "p12", "p20", "p21", "p22"]


def test_hubspot(source):
    contacts: list[Any] = [
        {"id": str(n), "properties": {"lastmodifieddate": f"2024-01-{n:02d}T00:00:00.5Z"}} for n in range(1, 16)
    ]
    most = 6  # of the 10,000 that a search serves

    def search(request: Request) -> Any:
        asked = request.json
        (found,) = asked["filterGroups"][0]["filters"]
        since = datetime.fromtimestamp(int(found["value"]) / 1000, UTC).isoformat()[:19]
        rows = [row for row in contacts if row["properties"]["lastmodifieddate"][:19] >= since]
        end = asked["after"] + asked["limit"]
        if end > most:
            return Response(b'{"message": "a search serves at most 10,000 results"}', 400)
        return {"total": len(rows), "results": rows[asked["after"] : end], "paging": {"next": {"after": str(end)}}}

    def owners(request: Request) -> Any:
        if "after" in request.query:
            return {"results": [{"id": "o2"}]}
        return {
            "results": [{"id": "o1"}],
            "paging": {"next": {"after": "1", "link": f"{api.url}/v/crm/v3/owners?after=1"}},
        }

    with serving(Api({"/v/crm/v3/objects/contacts/search": search, "/v/crm/v3/owners": owners})) as api:
        config = example("hubspot", api)
        config["streams"][0]["pagination"]["max_offset"] = most
        first = source.read(config)
        assert ids(first, "contacts") == sorted(str(n) for n in range(1, 16))
        assert ids(first, "owners") == ["o1", "o2"]
        contacts.append({"id": "16", "properties": {"lastmodifieddate": "2024-02-01T00:00:00Z"}})
        assert ids(source.read(config, "contacts", state=kept(first)), "contacts") == ["16"]


def test_microsoft_graph(source):
    def paged(rows: list[Any]) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            at = int(request.query.get("$skiptoken", "0"))
            more = at + 1 < len(rows)
            link = {"@odata.nextLink": f"{api.url}{request.path}?$skiptoken={at + 1}"} if more else {}
            return {"@odata.context": "x", **link, "value": rows[at : at + 1]}

        return answer

    answers = {"/v/users": paged([{"id": "u1"}, {"id": "u2"}]), "/v/groups": paged([{"id": "g1"}, {"id": "g2"}]),
               "/v/groups/g1/members": paged([{"id": "u1"}, {"id": "u2"}]),
               "/v/groups/g2/members": paged([{"id": "u2"}])}  # fmt: skip
    answers = {path: signed(answer, "graph-token") for path, answer in answers.items()}
    answers["/token"] = lambda request: {"access_token": "graph-token", "expires_in": 3599}
    with serving(Api(answers)) as api:
        result = source.read(example("microsoft-graph", api))
        assert len(api.of("/token")) == 1
    assert ids(result, "users") == ["u1", "u2"]
    members = sorted((row["group_id"], row["id"]) for row in records(result, "group_members"))
    assert members == [("g1", "u1"), ("g1", "u2"), ("g2", "u2")]


def test_gitlab_reads_changed_issues_and_says_when_the_token_has_expired(source):
    issues = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00.000Z"} for n in range(1, 6)]
    token = "<personal access token>"

    def linked(rows: list[Any]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            if request.headers.get("PRIVATE-TOKEN") != token:
                return Response(b'{"error": "invalid_token", "error_description": "Token is expired."}', 401)
            page, size = int(request.query.get("page", "1")), int(request.query["per_page"])
            found = [row for row in rows if row.get("updated_at", "") >= request.query.get("updated_after", "")]
            following = f'<{api.url}{request.target}&page={page + 1}>; rel="next"'
            more = {"Link": following} if len(found) > page * size else {}
            return Response(json.dumps(found[(page - 1) * size : page * size]).encode(), headers={**JSON, **more})

        return answer

    answers = {"/v/projects": linked([{"id": 7}, {"id": 8}]), "/v/projects/7/issues": linked(issues),
               "/v/projects/8/issues": lambda request: Response(b'{"message": "403 Forbidden"}', 403)}  # fmt: skip
    with serving(Api(answers)) as api:
        config = example("gitlab", api)
        first = source.read(config)
        assert first.exit_code == 0
        assert ids(first, "issues") == [1, 2, 3, 4, 5]
        issues.append({"id": 6, "updated_at": "2024-02-01T00:00:00.000Z"})
        assert ids(source.read(config, "issues", state=kept(first)), "issues") == [6]
        config["credentials"]["api_key"] = "an-expired-token"
        (error,) = traced(source.read(config, "projects"))
    assert error["failure_type"] == "config_error"
    assert "Token is expired" in error["message"]


def test_pokeapi_follows_its_links_to_the_end_and_reads_each_detail(source):
    names = [f"pokemon-{n}" for n in range(1, 8)]

    def listed(request: Request) -> Any:
        at, size = int(request.query.get("offset", "0")), int(request.query["limit"])
        more = at + size < len(names)
        following = f"{api.url}/v/pokemon?offset={at + size}&limit={size}" if more else None
        return {"count": len(names), "next": following, "results": [{"name": name} for name in names[at : at + size]]}

    def detail(request: Request) -> Any:
        name = request.path.rpartition("/")[2]
        return {"id": int(name[8:]), "name": name, "height": 7, "sprites": {"front": "left out"}}

    with serving(Api({"/v/pokemon": listed}, default=detail)) as api:
        result = source.read(example("pokeapi", api))
        assert len(api.of("/v/pokemon")) == 2 * 4  # the stream itself, and for its children
    assert [row["name"] for row in records(result, "pokemon")] == names
    assert ids(result, "pokemon_details") == list(range(1, 8))
    assert all("sprites" not in row for row in records(result, "pokemon_details"))


def test_coingecko_ends_with_an_empty_page_and_waits_when_the_limit_is_reached(source):
    coins = [{"id": f"coin-{n}", "current_price": n / 3} for n in range(4)]
    refused: list[Request] = []

    def markets(request: Request) -> Any:
        if request.query["page"] == "2" and not refused:
            refused.append(request)
            return Response(
                b'{"status": {"error_code": 429, "error_message": "limit"}}', 429, {**JSON, "Retry-After": "1"}
            )
        at = (int(request.query["page"]) - 1) * 2
        return coins[at : at + 2]

    with serving(Api({"/v/coins/markets": markets})) as api:
        config = example("coingecko", api)
        config["rate_limit"] = {"requests_per_second": 30}  # in place of a minute: behind a 429 its rest is waited for
        result = source.read(config)
        assert [request.query["page"] for request in api.requests] == ["1", "2", "2", "3"]
        assert {request.headers["x-cg-demo-api-key"] for request in api.requests} == {"<demo API key>"}
    assert result.exit_code == 0
    assert ids(result, "markets") == [coin["id"] for coin in coins]
