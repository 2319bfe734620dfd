"""The example configurations, and what stand-ins of their APIs share."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration_tests.harness import Result
from integration_tests.rest_api import Answer, Api, Request, Response, records

EXAMPLES = Path(__file__).parents[1] / "source-rest-api" / "examples"
JSON = {"Content-Type": "application/json"}
PAGE_SIZE = 2


def example(name: str, api: Api | str) -> Any:
    """The example, with the stand-in (or its address) in place of the API, small pages, and no waiting for a rate."""
    config = json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))
    config["base_url"] = api if isinstance(api, str) else f"{api.url}/v"
    config["max_retries"] = 1
    config.pop("rate_limit", None)
    for pages in filter(None, [config.get("pagination"), *(stream.get("pagination") for stream in config["streams"])]):
        if pages["pagination_type"] != "none":
            pages["page_size"] = PAGE_SIZE
    if "token_url" in config.get("credentials", {}) and isinstance(api, Api):
        config["credentials"]["token_url"] = f"{api.url}/token"
    return config


def ids(result: Result, stream: str) -> list[Any]:
    return sorted(record["id"] for record in records(result, stream))


def refusal(status: int, body: Any, **headers: str) -> Response:
    """An answer that is no data."""
    return Response(json.dumps(body).encode(), status, {**JSON, **headers})


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def basic(user: str, password: str) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def signed(answer: Answer, header: tuple[str, str], otherwise: Any) -> Answer:
    """The answer for who sends this header, and a 401 for everybody else."""
    name, value = header

    def guard(request: Request) -> Any:
        return answer(request) if request.headers.get(name) == value else refusal(401, otherwise)

    return guard


def here(request: Request) -> str:
    """The stand-in's own address, as the API writes it into its links."""
    return f"http://{request.headers['Host']}{request.path}"


def linked(rows: Sequence[Any], since: str = "") -> Answer:
    """Pages by the Link header, of what changed since a parameter says so."""

    def answer(request: Request) -> Response:
        page, size = int(request.query.get("page", "1")), int(request.query["per_page"])
        found = [row for row in rows if not since or row["updated_at"] >= request.query.get(since, "")]
        query = "&".join(f"{name}={value}" for name, value in {**request.query, "page": page + 1}.items())
        link = {"Link": f'<{here(request)}?{query}>; rel="next"'} if len(found) > page * size else {}
        return Response(json.dumps(found[(page - 1) * size : page * size]).encode(), headers={**JSON, **link})

    return answer
