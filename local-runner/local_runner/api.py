"""Two public APIs on this machine, with their real data and their real rules.

- ``/fdsnws/event/1/query``: the event service of the U.S. Geological Survey as its documentation describes it
  (https://earthquake.usgs.gov/fdsnws/event/1/, FDSN web services 1.2): ``limit`` up to 20,000, ``offset`` counts from
  1, ``updatedafter``, ``starttime`` (default: 30 days ago), ``endtime``, ``orderby``; errors are plain text.
- ``/countries.json``: the file that mledoze/countries publishes.

An event is there once the clock has passed the moment of its last update. The data's sources are in ATTRIBUTION.md.

    python -m local_runner.api --host 127.0.0.1 --port 18001     until it is stopped; every event has happened
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

DATA = Path(__file__).with_name("data")
MOST_EVENTS = 20_000
ORDERS = {
    "time": (lambda event: event["properties"]["time"], True),
    "time-asc": (lambda event: event["properties"]["time"], False),
    "magnitude": (lambda event: event["properties"]["mag"] or 0, True),
    "magnitude-asc": (lambda event: event["properties"]["mag"] or 0, False),
}
PARAMETERS = {"format", "starttime", "endtime", "updatedafter", "limit", "offset", "orderby", "minmagnitude"}
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


class BadRequestError(ValueError):
    """The service refuses a parameter, in its own words."""


@dataclass
class PublicApis:
    """What the server answers from.

    Attributes:
        now: the services' clock; move it to let events happen.
        requests: path and query of each request so far.
    """

    now: datetime = END_OF_TIME - timedelta(days=365)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._feed = json.loads((DATA / "usgs_earthquakes_week.geojson").read_bytes())
        self._countries = (DATA / "countries.json").read_bytes()

    def answer(self, target: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        self.requests.append(target)
        parts = urlsplit(target)
        match parts.path:
            case "/countries.json":
                return 200, "text/plain; charset=utf-8", self._countries  # what raw.githubusercontent.com says
            case "/fdsnws/event/1/query":
                try:
                    found = self._query(dict(parse_qsl(parts.query, keep_blank_values=True)))
                except BadRequestError as problem:
                    return 400, "text/plain", f"Error 400: Bad Request\n\n{problem}\n\nRequest:\n{target}\n".encode()
                return 200, "application/json; charset=utf-8", json.dumps(found).encode()
            case _:
                return 404, "text/plain", b"Error 404: Not Found\n"

    def events(self) -> list[dict[str, Any]]:
        """Every event that there is by now."""
        now_ms = self.now.timestamp() * 1000
        return [event for event in self._feed["features"] if event["properties"]["updated"] <= now_ms]

    def last_update(self, share: float) -> datetime:
        """The moment by which this share of all events has been updated last."""
        updates = sorted(event["properties"]["updated"] for event in self._feed["features"])
        index = max(0, round(share * len(updates)) - 1)
        return datetime.fromtimestamp(updates[index] / 1000, UTC)

    def _query(self, given: Mapping[str, str]) -> dict[str, Any]:
        unknown = sorted(given.keys() - PARAMETERS)
        if unknown:
            raise BadRequestError(f'Unknown parameter "{unknown[0]}".')
        if given.get("format") != "geojson":
            raise BadRequestError(f'Bad format value "{given.get("format", "")}". Valid values are: "geojson".')
        key, is_descending = _choice(given, "orderby", ORDERS, "time")
        start = _moment(given, "starttime", self.now - timedelta(days=30))
        end = _moment(given, "endtime", self.now)
        updated = _moment(given, "updatedafter", datetime(1, 1, 1, tzinfo=UTC))
        limit = _integer(given, "limit", MOST_EVENTS, least=1, most=MOST_EVENTS)
        offset = _integer(given, "offset", 1, least=1, most=None)
        minimum = float(given.get("minmagnitude", "-inf"))
        found = [
            event
            for event in self.events()
            if _ms(start) <= event["properties"]["time"] <= _ms(end)
            and event["properties"]["updated"] > _ms(updated)
            and (event["properties"]["mag"] or 0) >= minimum
        ]
        found.sort(key=lambda event: event["id"])
        found.sort(key=key, reverse=is_descending)
        page = found[offset - 1 : offset - 1 + limit]
        metadata = {"generated": int(_ms(self.now)), "title": "USGS Earthquakes", "status": 200, "api": "1.5.8",
                    "limit": limit, "offset": offset, "count": len(page)}  # fmt: skip
        return {"type": "FeatureCollection", "metadata": metadata, "features": page}


@contextmanager
def running_apis(apis: PublicApis, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in threads of this process, on a free port if none is given; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = apis.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: requests are kept in ``PublicApis.requests``."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that go away, as on a Ctrl-C; anything else is shown."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    server = Server((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="Two public APIs with a week of real data.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    apis = PublicApis()
    apis.now = apis.last_update(1.0)
    with running_apis(apis, arguments.host, arguments.port):
        threading.Event().wait()


def _choice(given: Mapping[str, str], name: str, choices: Mapping[str, Any], default: str) -> Any:
    value = given.get(name, default)
    if value not in choices:
        raise BadRequestError(f'Bad {name} value "{value}". Valid values are: {", ".join(choices)}.')
    return choices[value]


def _moment(given: Mapping[str, str], name: str, default: datetime) -> datetime:
    if name not in given:
        return default
    try:
        found = datetime.fromisoformat(given[name])
    except ValueError:
        raise BadRequestError(f'Bad {name} value "{given[name]}". Valid values are ISO-8601 timestamps.') from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _integer(given: Mapping[str, str], name: str, default: int, *, least: int, most: int | None) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        limits = f"{least} to {most}" if most is not None else f"{least} or more"
        raise BadRequestError(f'Bad {name} value "{text}". Valid values are integers, {limits}.')
    return int(text)


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000 if moment.year > 1 else float("-inf")


if __name__ == "__main__":
    main()
