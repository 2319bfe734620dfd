"""The example configurations for tools of work, against stand-ins that page, limit and fail as those APIs document."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration_tests.examples import basic, bearer, example, here, ids, linked, refusal, signed
from integration_tests.rest_api import Answer, Api, InProcess, Request, kept, records, serving, traced


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


# --- GitHub -----------------------------------------------------------------------------------------------------------

TOKEN = bearer("<personal access token>")


def github(issues: list[Any]) -> dict[str, Answer]:
    repos = [{"id": 1, "name": "arrow"}, {"id": 2, "name": "spark"}, {"id": 3, "name": "gone"}]
    gone = refusal(410, {"message": "Issues are disabled"})
    answers = {"/v/orgs/apache/repos": linked(repos), "/v/repos/apache/arrow/issues": linked(issues, since="since"),
               "/v/repos/apache/spark/issues": linked([], since="since"),
               "/v/repos/apache/gone/issues": lambda request: gone}  # fmt: skip
    return {path: signed(answer, TOKEN, {"message": "Bad credentials"}) for path, answer in answers.items()}


def test_github_reads_the_issues_of_all_repositories_and_then_what_changed(source):
    issues = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 6)]
    with serving(Api(github(issues))) as api:
        config = example("github", api)
        first = source.read(config)
        assert first.exit_code == 0
        assert ids(first, "repos") == [1, 2, 3]
        assert ids(first, "issues") == [1, 2, 3, 4, 5]
        assert {(row["org"], row["repo"]) for row in records(first, "issues")} == {("apache", "arrow")}
        issues.append({"id": 6, "updated_at": "2024-02-01T00:00:00Z"})
        assert ids(source.read(config, state=kept(first)), "issues") == [6]


def test_github_ends_at_a_limit_that_resets_in_an_hour_and_the_next_sync_misses_nothing(source):
    issues = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 6)]
    answers = github(issues)
    used_up = refusal(403, {"message": "API rate limit exceeded for user ID 1."}, **{
        "x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 3600)
    })  # fmt: skip
    whole = answers["/v/repos/apache/arrow/issues"]
    with serving(Api({**answers, "/v/repos/apache/arrow/issues": lambda request: used_up})) as api:
        config = example("github", api)
        first = source.read(config)
        assert first.exit_code == 1
        assert len(api.of("/v/repos/apache/arrow/issues")) == 1
        (error,) = traced(first)
        api.answers["/v/repos/apache/arrow/issues"] = whole
        assert ids(source.read(config, state=kept(first)), "issues") == [1, 2, 3, 4, 5]
    assert error["failure_type"] == "transient_error"
    assert "rate_limit.max_wait_seconds" in error["message"]


# --- GitLab -----------------------------------------------------------------------------------------------------------


def test_gitlab_reads_changed_issues_and_says_when_the_token_has_expired(source):
    issues = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00.000Z"} for n in range(1, 6)]
    expired = {"error": "invalid_token", "error_description": "Token is expired."}
    answers = {"/v/projects": linked([{"id": 7}, {"id": 8}]),
               "/v/projects/7/issues": linked(issues, since="updated_after"),
               "/v/projects/8/issues": lambda request: refusal(403, {"message": "403 Forbidden"})}  # fmt: skip
    token = ("PRIVATE-TOKEN", "<personal access token>")
    with serving(Api({path: signed(answer, token, expired) for path, answer in answers.items()})) as api:
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


# --- Jira -------------------------------------------------------------------------------------------------------------

JQL = re.compile(r'updated >= "(\d{4}-\d\d-\d\d \d\d:\d\d)" ORDER BY updated ASC')
PROFILE = timedelta(hours=-8)  # the time zone of the user that asks


def issue(number: int, moment: datetime) -> dict[str, Any]:
    updated = f"{moment:%Y-%m-%dT%H:%M:%S.000+0000}"
    return {"id": str(number), "key": f"A-{number}", "fields": {"created": updated, "updated": updated}}


def jira(issues: list[Any]) -> dict[str, Answer]:
    """Issues that the user may not browse leave holes in pages, and one page empty."""

    def projects(request: Request) -> Any:
        at, size = int(request.query["startAt"]), int(request.query["maxResults"])
        rows = [{"id": str(n)} for n in range(3)]
        return {"startAt": at, "total": 3, "isLast": at + size >= 3, "values": rows[at : at + size]}

    def search(request: Request) -> Any:
        asked = request.json
        assert asked["fields"] == ["*all"]
        found = JQL.fullmatch(asked["jql"])
        if found is None:
            return refusal(400, {"errorMessages": ["Error in the JQL Query"]})
        since = (datetime.strptime(found[1], "%Y-%m-%d %H:%M") - PROFILE).strftime("%Y-%m-%dT%H:%M")
        rows = [row for row in issues if row["fields"]["updated"] >= since]
        rows.sort(key=lambda row: str(row["fields"]["updated"]))
        at, size = int(asked.get("nextPageToken", "0")), asked["maxResults"]
        visible = [row for row in rows[at : at + size] if not row.get("secret")]
        following = {"nextPageToken": str(at + size)} if at + size < len(rows) else {}
        return {"issues": visible, "isLast": not following, **following}

    answers = {"/v/project/search": projects, "/v/search/jql": search}
    refused = {"errorMessages": ["Client must be authenticated to access this resource."]}
    user = basic("<e-mail address>", "<API token>")
    return {path: signed(answer, user, refused) for path, answer in answers.items()}


def test_jira_goes_on_behind_an_empty_page_and_loses_no_change_to_a_time_zone(source):
    start = datetime(2024, 1, 1, tzinfo=UTC)
    issues = [issue(n, start + timedelta(days=n)) for n in range(1, 8)]
    for hidden in issues[2:4]:
        hidden["secret"] = True
    with serving(Api(jira(issues))) as api:
        config = example("jira", api)
        first = source.read(config)
        assert first.exit_code == 0
        assert ids(first, "projects") == ["0", "1", "2"]
        assert len(api.of("/v/project/search")) == 2
        assert ids(first, "issues") == ["1", "2", "5", "6", "7"]
        assert records(first, "issues")[0]["fields"]["updated"] == "2024-01-02T00:00:00Z"
        issues[0] = issue(1, start + timedelta(days=7, minutes=1))
        second = source.read(config, "issues", state=kept(first))
        assert "1" in ids(second, "issues")


def test_jira_says_when_the_token_has_expired(source):
    with serving(Api(jira([]))) as api:
        config = example("jira", api)
        config["credentials"]["password"] = "an-expired-token"
        (error,) = traced(source.read(config, "issues"))
    assert error["failure_type"] == "config_error"
    assert "Client must be authenticated" in error["message"]


# --- Slack ------------------------------------------------------------------------------------------------------------


def slack(messages: dict[str, list[Any]]) -> dict[str, Answer]:
    def channels(request: Request) -> Any:
        rows = [
            {"id": "C1", "is_member": True},
            None,
            {"id": "C2", "is_member": True},
            {"id": "C3", "is_member": False},
        ]
        at = int(request.query.get("cursor", "0"))
        following = str(at + 1) if at + 1 < len(rows) else ""
        page = list(filter(None, rows[at : at + 1]))  # one of them is empty, and not the last
        return {"ok": True, "channels": page, "response_metadata": {"next_cursor": following}}

    def history(request: Request) -> Any:
        if request.query["channel"] not in messages:
            return {"ok": False, "error": "not_in_channel"}
        rows = [row for row in messages[request.query["channel"]] if row["ts"] >= request.query.get("oldest", "")]
        return {"ok": True, "messages": rows[::-1], "has_more": False}

    return {"/v/conversations.list": channels, "/v/conversations.history": history}


def test_slack_goes_on_behind_an_empty_page_and_reads_the_channels_of_the_bot_newest_first(source):
    messages = {"C1": [{"ts": "1700000000.000100"}, {"ts": "1700000000.000200"}], "C2": [{"ts": "1700000001.000100"}]}
    with serving(Api(slack(messages))) as api:
        config = example("slack", api)
        first = source.read(config)
        assert first.exit_code == 0
        found = sorted((row["channel"], row["ts"]) for row in records(first, "messages"))
        assert found == [(channel, row["ts"]) for channel, rows in sorted(messages.items()) for row in rows]
        messages["C1"].append({"ts": "1700000000.000300"})
        second = source.read(config, "messages", state=kept(first))
        assert [row["ts"] for row in records(second)] == ["1700000000.000300"]


def test_slack_says_what_is_wrong_where_an_error_comes_with_status_200(source):
    with serving(Api({"/v/conversations.list": lambda request: {"ok": False, "error": "invalid_auth"}})) as api:
        (error,) = traced(source.read(example("slack", api), "channels"))
    assert "answered 200 with an error: invalid_auth" in error["message"]


# --- Notion -----------------------------------------------------------------------------------------------------------


def test_notion_reads_the_pages_of_each_database_and_names_one_that_is_not_shared(source):
    def paged(rows: list[Any]) -> Answer:
        def answer(request: Request) -> Any:
            at = int(request.json.get("start_cursor", "0"))
            end = at + request.json["page_size"]
            more = end < len(rows)
            return {"results": rows[at:end], "has_more": more, "next_cursor": str(end) if more else None}

        return answer

    answers = {"/v/search": paged([{"id": "d1"}, {"id": "d2"}, {"id": "d3"}]), "/v/databases/d3/query": paged([])}
    answers |= {f"/v/databases/d{n}/query": paged([{"id": f"p{n}{m}"} for m in range(3)]) for n in (1, 2)}
    with serving(Api(answers)) as api:
        config = example("notion", api)
        result = source.read(config)
        assert {request.json["filter"]["value"] for request in api.of("/v/search")} == {"database"}
        assert {request.headers["Notion-Version"] for request in api.requests} == {"2022-06-28"}
        assert ids(result, "databases") == ["d1", "d2", "d3"]
        assert ids(result, "pages") == ["p10", "p11", "p12", "p20", "p21", "p22"]
        missing = {"object": "error", "code": "object_not_found", "message": "Could not find database with ID: d2."}
        api.answers["/v/databases/d2/query"] = lambda request: refusal(404, missing)
        result = source.read(config, "pages")
    (error,) = traced(result)
    assert "Could not find database" in error["message"]
    assert ids(result, "pages") == ["p10", "p11", "p12"]


# --- HubSpot ----------------------------------------------------------------------------------------------------------


def test_hubspot_reads_on_behind_the_last_result_that_a_search_serves(source):
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
            return refusal(400, {"message": "a search serves at most 10,000 results"})
        return {"total": len(rows), "results": rows[asked["after"] : end], "paging": {"next": {"after": str(end)}}}

    def owners(request: Request) -> Any:
        if "after" in request.query:
            return {"results": [{"id": "o2"}]}
        return {"results": [{"id": "o1"}], "paging": {"next": {"after": "1", "link": f"{here(request)}?after=1"}}}

    with serving(Api({"/v/crm/v3/objects/contacts/search": search, "/v/crm/v3/owners": owners})) as api:
        config = example("hubspot", api)
        config["streams"][0]["pagination"]["max_offset"] = most
        first = source.read(config)
        assert ids(first, "contacts") == sorted(str(n) for n in range(1, 16))
        assert ids(first, "owners") == ["o1", "o2"]
        contacts.append({"id": "16", "properties": {"lastmodifieddate": "2024-02-01T00:00:00Z"}})
        assert ids(source.read(config, "contacts", state=kept(first)), "contacts") == ["16"]


# --- Microsoft Graph --------------------------------------------------------------------------------------------------


def test_microsoft_graph_renews_a_token_that_expires_between_two_pages(source):
    tokens: list[str] = []

    def paged(rows: list[Any]) -> Answer:
        def answer(request: Request) -> Any:
            if request.headers.get("Authorization") != f"Bearer {tokens[-1]}":
                expired = {"code": "InvalidAuthenticationToken", "message": "Lifetime validation failed."}
                return refusal(401, {"error": expired})
            at = int(request.query.get("$skiptoken", "0"))
            link = {"@odata.nextLink": f"{here(request)}?$skiptoken={at + 1}"} if at + 1 < len(rows) else {}
            if request.path == "/v/users" and at == 0 and len(tokens) == 1:
                tokens.append("")  # the first token is worth nothing from here on
            return {"@odata.context": "x", **link, "value": rows[at : at + 1]}

        return answer

    def token(request: Request) -> Any:
        tokens.append(f"graph-token-{len(tokens)}")
        return {"access_token": tokens[-1], "expires_in": 3599}

    answers = {"/v/users": paged([{"id": "u1"}, {"id": "u2"}]), "/v/groups": paged([{"id": "g1"}, {"id": "g2"}]),
               "/v/groups/g1/members": paged([{"id": "u1"}, {"id": "u2"}]),
               "/v/groups/g2/members": paged([{"id": "u2"}]), "/token": token}  # fmt: skip
    with serving(Api(answers)) as api:
        config = {**example("microsoft-graph", api), "num_workers": 1}
        users = source.read(config, "users")
        assert users.exit_code == 0
        assert ids(users, "users") == ["u1", "u2"]
        assert len(api.of("/token")) == 2
        result = source.read(config, "groups", "group_members")
        assert len(api.of("/token")) == 3
    members = sorted((row["group_id"], row["id"]) for row in records(result, "group_members"))
    assert members == [("g1", "u1"), ("g1", "u2"), ("g2", "u2")]


# --- Zendesk ----------------------------------------------------------------------------------------------------------


def test_zendesk_ends_where_the_stream_ends_though_a_next_url_is_there_and_waits_at_the_limit(source):
    tickets: list[Any] = [{"id": n, "generated_timestamp": 1_700_000_000 + n} for n in range(1, 6)]
    organizations: list[Any] = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 4)]
    refused: list[Request] = []

    def by_cursor(request: Request) -> Any:
        if "cursor" in request.query and not refused:
            refused.append(request)
            return refusal(429, {"error": "APIRateLimitExceeded"}, **{"Retry-After": "1"})
        position = request.query.get("cursor", "0-" + request.query.get("start_time", ""))
        at, since = map(int, position.split("-"))
        rows = [row for row in tickets if row["generated_timestamp"] >= since]
        size = int(request.query["per_page"])
        after = f"{min(at + size, len(rows))}-{since}"
        return {"tickets": rows[at : at + size], "after_cursor": after, "end_of_stream": at + size >= len(rows),
                "after_url": f"{here(request)}?cursor={after}&per_page={size}"}  # fmt: skip

    def by_time(request: Request) -> Any:
        since = datetime.fromtimestamp(int(request.query["start_time"]), UTC).isoformat()
        rows = [row for row in organizations if row["updated_at"].replace("Z", "+00:00") >= since]
        page = rows[: int(request.query["per_page"])]
        end = int(datetime.fromisoformat(page[-1]["updated_at"]).timestamp()) + 1
        following = f"{here(request)}?start_time={end}&per_page={request.query['per_page']}"
        return {"organizations": page, "count": len(rows), "end_time": end, "next_page": following,
                "end_of_stream": len(page) == len(rows)}  # fmt: skip

    answers: dict[str, Answer] = {"/v/incremental/tickets/cursor": by_cursor, "/v/incremental/organizations": by_time}
    user = basic("<e-mail address>/token", "<API token>")
    answers = {path: signed(answer, user, {"error": "Couldn't authenticate you"}) for path, answer in answers.items()}
    with serving(Api(answers)) as api:
        config = example("zendesk", api)
        first = source.read(config)
        assert first.exit_code == 0
        assert ids(first, "tickets") == [1, 2, 3, 4, 5]
        assert ids(first, "organizations") == [1, 2, 3]
        assert len(api.of("/v/incremental/tickets/cursor")) == 3 + len(refused)
        assert len(refused) == 1
        tickets[0] = {"id": 1, "generated_timestamp": 1_700_000_009, "status": "deleted"}
        second = source.read(config, "tickets", state=kept(first))
        assert [(row["id"], row["status"]) for row in records(second)] == [(1, "deleted")]
