"""The example configurations for shops and open data, against stand-ins that page, limit and fail as those APIs do."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from local_runner.api import PublicApis, running_apis

from integration_tests.examples import JSON, bearer, example, here, ids, refusal, signed
from integration_tests.rest_api import Answer, Api, InProcess, Request, Response, kept, records, serving, traced


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


# --- Stripe -----------------------------------------------------------------------------------------------------------


def stripe(charges: list[Any]) -> dict[str, Answer]:
    """Newest first."""

    def listed(request: Request) -> Any:
        found = [row for row in charges if row["created"] >= int(request.query.get("created[gte]", "0"))]
        after = request.query.get("starting_after")
        begin = [row["id"] for row in found].index(after) + 1 if after else 0
        end = begin + int(request.query["limit"])
        return {"object": "list", "data": found[begin:end], "has_more": end < len(found)}

    answers: dict[str, Answer] = {
        "/v/charges": listed,
        "/v/customers": lambda request: {"data": [], "has_more": False},
    }
    expired = {"error": {"code": "api_key_expired", "message": "Expired API Key provided."}}
    return {path: signed(answer, bearer("<secret key>"), expired) for path, answer in answers.items()}


def test_stripe_reads_newest_first_to_the_end_and_then_what_is_new(source):
    charges: list[Any] = [{"id": f"ch_{n}", "created": 1_700_000_000 + n * 100_000} for n in range(5, 0, -1)]
    with serving(Api(stripe(charges))) as api:
        config = example("stripe", api)
        first = source.read(config)
        assert ids(first, "charges") == [f"ch_{n}" for n in range(1, 6)]
        assert len(api.of("/v/charges")) == 3
        assert records(first, "charges")[0]["created"].endswith("Z")
        charges.insert(0, {"id": "ch_6", "created": 1_700_600_000})
        assert ids(source.read(config, state=kept(first)), "charges") == ["ch_6"]


def test_stripe_says_when_the_key_has_expired(source):
    with serving(Api(stripe([]))) as api:
        config = example("stripe", api)
        config["credentials"]["token"] = "an-expired-key"
        (error,) = traced(source.read(config, "charges"))
    assert error["failure_type"] == "config_error"
    assert "Expired API Key" in error["message"]


# --- Shopify ----------------------------------------------------------------------------------------------------------


def test_shopify_follows_its_links_with_nothing_added_and_waits_when_the_bucket_is_full(source):
    orders: list[Any] = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00-05:00"} for n in range(1, 6)]
    refused: list[Request] = []

    def answer(request: Request) -> Any:
        if request.headers.get("X-Shopify-Access-Token") != "<Admin API access token>":
            return refusal(401, {"errors": "[API] Invalid API key or access token"})
        info = request.query.get("page_info", "")
        if info and set(request.query) != {"page_info", "limit"}:
            return refusal(400, {"errors": {"status": "status cannot be passed when page_info is present."}})
        if info and not refused:
            refused.append(request)
            return refusal(429, {"errors": "Exceeded 2 calls per second for api client."}, **{"Retry-After": "1.0"})
        at, since = info.split("~") if info else ("0", request.query.get("updated_at_min", ""))
        rows = [row for row in orders if not since or _moment(row["updated_at"]) >= _moment(since)]
        size = int(request.query["limit"])
        page, end = rows[int(at) : int(at) + size], int(at) + size
        following = f'<{here(request)}?limit={size}&page_info={end}~{since}>; rel="next"'
        headers = {**JSON, "X-Shopify-Shop-Api-Call-Limit": "40/40", **({"Link": following} if end < len(rows) else {})}
        return Response(json.dumps({"orders": page}).encode(), headers=headers)

    with serving(Api({"/v/orders.json": answer})) as api:
        config = example("shopify", api)
        first = source.read(config, "orders", mode="incremental")
        assert first.exit_code == 0
        assert ids(first, "orders") == [1, 2, 3, 4, 5]
        assert len(refused) == 1
        orders[0] = {"id": 1, "updated_at": "2024-02-01T00:00:00-05:00"}
        assert ids(source.read(config, "orders", state=kept(first), mode="incremental"), "orders") == [1]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- CoinGecko --------------------------------------------------------------------------------------------------------


def test_coingecko_ends_with_an_empty_page_and_waits_when_the_limit_is_reached(source):
    coins = [{"id": f"coin-{n}", "current_price": n / 3} for n in range(4)]
    refused: list[Request] = []

    def markets(request: Request) -> Any:
        if request.query["page"] == "2" and not refused:
            refused.append(request)
            return refusal(429, {"status": {"error_code": 429, "error_message": "limit"}}, **{"Retry-After": "1"})
        at = (int(request.query["page"]) - 1) * 2
        return coins[at : at + 2]

    with serving(Api({"/v/coins/markets": markets})) as api:
        result = source.read(example("coingecko", api))
        assert [request.query["page"] for request in api.requests] == ["1", "2", "2", "3"]
        assert {request.headers["x-cg-demo-api-key"] for request in api.requests} == {"<demo API key>"}
    assert result.exit_code == 0
    assert ids(result, "markets") == [coin["id"] for coin in coins]


# --- PokéAPI ----------------------------------------------------------------------------------------------------------


def test_pokeapi_follows_its_links_to_the_end_and_reads_each_detail(source):
    names = [f"pokemon-{n}" for n in range(1, 8)]

    def listed(request: Request) -> Any:
        at, size = int(request.query.get("offset", "0")), int(request.query["limit"])
        following = f"{here(request)}?offset={at + size}&limit={size}" if at + size < len(names) else None
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


# --- U.S. Geological Survey, and the countries: stand-ins of the demo, with the data of these APIs --------------------


def test_usgs_reads_what_was_updated_and_says_when_more_is_asked_for_than_one_answer_holds(source):
    apis = PublicApis()
    apis.now = apis.last_update(0.5)
    with running_apis(apis) as url:
        config = example("usgs", url)
        config["streams"][0]["pagination"]["page_size"] = 400
        first = source.read(config)
        before = {event["id"] for event in apis.events()}
        assert first.exit_code == 0
        assert ids(first, "earthquakes") == sorted(before)
        assert 2 < len(apis.requests) == len(before) // 400 + 2  # the last of them is empty
        apis.now = apis.last_update(0.55)
        second = source.read(config, state=kept(first))
        assert set(ids(second, "earthquakes")) == {event["id"] for event in apis.events()} - before
        config["streams"][0]["pagination"]["page_size"] = 20_001
        (error,) = traced(source.read(config))
    assert error["failure_type"] == "config_error"
    assert "answered 400: Error 400: Bad Request" in error["message"]


def test_countries_are_one_file_and_a_branch_that_is_gone_is_an_error(source):
    with running_apis(PublicApis()) as url:
        assert len(records(source.read(example("countries", url)))) == 250
        (error,) = traced(source.read(example("countries", f"{url}/gone")))
    assert error["failure_type"] == "config_error"
    assert "answered 404" in error["message"]


# --- World Bank -------------------------------------------------------------------------------------------------------


def test_world_bank_reads_the_list_behind_the_head_and_names_an_error_that_comes_with_status_200(source):
    head = {"per_page": 2, "lastupdated": "2026-01-28"}
    wrong = [{"message": [{"id": "120", "key": "Invalid value", "value": "The provided parameter value is not valid"}]}]

    def paged(rows: list[Any]) -> Answer:
        def answer(request: Request) -> Any:
            assert request.query["format"] == "json"  # the default is XML
            page, size = int(request.query["page"]), int(request.query["per_page"])
            if not rows:
                return [{**head, "page": 0, "pages": 0, "total": 0}, None]
            pages = -(-len(rows) // size)
            return [{**head, "page": page, "pages": pages, "total": len(rows)}, rows[(page - 1) * size : page * size]]

        return answer

    population = [{"indicator": {"id": "SP.POP.TOTL"}, "country": {"id": "DE"}, "date": str(year), "value": 83_000_000}
                  for year in range(2020, 2025)]  # fmt: skip
    answers = {"/v/country": paged([{"id": "DEU"}, {"id": "FRA"}, {"id": "ITA"}]),
               "/v/country/all/indicator/SP.POP.TOTL": paged(population),
               "/v/country/all/indicator/NY.GDP.MKTP.CD": paged([])}  # fmt: skip
    with serving(Api(answers)) as api:
        config = example("world-bank", api)
        result = source.read(config)
        assert result.exit_code == 0
        assert ids(result, "countries") == ["DEU", "FRA", "ITA"]
        assert [row["date"] for row in records(result, "observations")] == [str(year) for year in range(2020, 2025)]
        assert len(api.of("/v/country/all/indicator/SP.POP.TOTL")) == 3
        assert len(api.of("/v/country/all/indicator/NY.GDP.MKTP.CD")) == 1
        api.answers["/v/country/all/indicator/NY.GDP.MKTP.CD"] = lambda request: wrong
        (error,) = traced(source.read(config, "observations"))
    assert error["failure_type"] == "config_error"
    assert "answered 200 with an error: The provided parameter value is not valid" in error["message"]


# --- Open-Meteo -------------------------------------------------------------------------------------------------------

TODAY = datetime.now(UTC).date()


def weather(known_until: date) -> Answer:
    """Two values a day; those that are not known yet are null."""

    def answer(request: Request) -> Any:
        first, last = (date.fromisoformat(request.query[name]) for name in ("start_date", "end_date"))
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        hours = [(datetime(day.year, day.month, day.day, hour, tzinfo=UTC), day) for day in days for hour in (0, 12)]
        columns = {
            "time": [str(int(moment.timestamp())) for moment, _ in hours],
            "temperature_2m": ["12.50" if day <= known_until else "null" for _, day in hours],
        }
        text = ", ".join(f'"{name}": [{", ".join(values)}]' for name, values in columns.items())
        body = f'{{"latitude": 52.5, "hourly_units": {{"temperature_2m": "C"}}, "hourly": {{{text}}}}}'
        return Response(body.encode())

    return answer


def open_meteo(api: Api) -> Any:
    config = example("open-meteo", api)
    config["streams"][0]["incremental"]["start"] = str(TODAY - timedelta(days=40))
    return config


def test_open_meteo_makes_rows_of_columns_and_asks_again_for_the_days_that_were_null(source):
    with serving(Api({"/v/archive": weather(TODAY - timedelta(days=5))})) as api:
        config = open_meteo(api)
        first = source.read(config)
        assert first.exit_code == 0
        assert len({row["time"] for row in records(first)}) == len(records(first)) == 41 * 2
        assert sum(row["temperature_2m"] is None for row in records(first)) == 5 * 2
        assert b'"temperature_2m":12.50' in first.stdout
        spans = [(request.query["start_date"], request.query["end_date"]) for request in api.requests]
        assert sorted(spans) == [(str(TODAY - timedelta(days=40)), str(TODAY - timedelta(days=11))),
                                 (str(TODAY - timedelta(days=10)), str(TODAY))]  # fmt: skip
        api.answers["/v/archive"] = weather(TODAY)
        second = source.read(config, state=kept(first))
    again = {row["time"]: row["temperature_2m"] for row in records(second)}
    missing = {row["time"] for row in records(first) if row["temperature_2m"] is None}
    assert missing <= again.keys()
    assert set(again.values()) == {12.5}


def test_open_meteo_with_a_column_that_is_too_short_is_an_error_and_no_rows(source):
    broken = {"hourly": {"time": [0, 3600, 7200], "temperature_2m": [12.5, 12.6]}}
    with serving(Api({"/v/archive": lambda request: broken})) as api:
        result = source.read(open_meteo(api))
    (error,) = traced(result)
    assert records(result) == []
    assert "Stream 'berlin_hourly'" in error["message"]
    assert "lists of different lengths at 'hourly': 'temperature_2m' has 2 values, 'time' has 3" in error["message"]


# --- NASA -------------------------------------------------------------------------------------------------------------

KEY = "a-key-of-nasa-4711"


def nasa(request: Request) -> Any:
    """Two objects a day, one of which comes near every day."""
    first, last = (date.fromisoformat(request.query[name]) for name in ("start_date", "end_date"))
    if (last - first).days > 7:
        return refusal(400, {"code": 400, "error_message": "The Feed date limit is only 7 Days"})
    days = [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]
    link = {"self": f"{here(request)}?api_key={request.query['api_key']}"}
    objects = {day: [{"links": link, "id": "1"}, {"links": link, "id": day.replace("-", "")}] for day in days}
    return {"links": {"next": f"{here(request)}?start_date={last}"}, "near_earth_objects": objects}


def near_earth_objects(api: Api) -> Any:
    config = example("nasa", api)
    config["credentials"]["api_key"] = KEY
    config["streams"][0]["incremental"]["start"] = str(TODAY - timedelta(days=20))
    return config


def test_nasa_goes_on_where_the_limit_of_the_key_has_stopped_it(source):
    left = [1]

    def limited(request: Request) -> Any:
        if not left:
            words = {"error": {"code": "OVER_RATE_LIMIT", "message": "You have exceeded your rate limit."}}
            return refusal(429, words, **{"X-RateLimit-Limit": "30", "X-RateLimit-Remaining": "0"})
        left.pop()
        return nasa(request)

    with serving(Api({"/v/neo/rest/v1/feed": limited})) as api:
        config = {**near_earth_objects(api), "num_workers": 1, "max_retries": 0}
        first = source.read(config)
        assert first.exit_code == 1
        (error,) = traced(first)
        assert error["failure_type"] == "transient_error"
        assert "exceeded your rate limit" in error["message"]
        assert len(records(first)) == 7 * 2
        left += range(10)
        second = source.read(config, state=kept(first))
        assert second.exit_code == 0
        assert len(left) == 10 - 3  # from the last day that was read on, whose records do not come again
    days = {str(TODAY - timedelta(days=n)) for n in range(21)}
    found = [(row["_key"], row["id"]) for row in [*records(first), *records(second)]]
    assert sorted(found) == sorted([*((day, "1") for day in days), *((day, day.replace("-", "")) for day in days)])


def test_nasa_writes_no_key_into_records_and_says_which_span_is_too_long(source):
    with serving(Api({"/v/neo/rest/v1/feed": nasa})) as api:
        config = near_earth_objects(api)
        result = source.read(config)
        assert {request.query["api_key"] for request in api.requests} == {KEY}
        config["streams"][0]["incremental"]["step"] = "P30D"
        (error,) = traced(source.read(config))
    assert result.exit_code == 0
    assert KEY.encode() not in result.stdout
    assert error["failure_type"] == "config_error"
    assert "The Feed date limit is only 7 Days" in error["message"]
