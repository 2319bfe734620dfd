"""The whole way from an address to a configuration of one stream, and why it is the one.

The last step reads the stream by that configuration: what is handed over was seen to work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from source_rest_api.body import RecordFinder
from source_rest_api.candidates import Key, keys_in, value_at
from source_rest_api.form import SECRET_FIELDS, Form
from source_rest_api.looking import MOST_RECORDS, Asked, Look, Record
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.pagination import Answer
from source_rest_api.probing.address import Address
from source_rest_api.probing.asking import SINGLE, Page, Prober, Spent, unreadable
from source_rest_api.probing.paging import Paging, PagingSearch
from source_rest_api.probing.places import ROOT, record_place
from source_rest_api.probing.since import Since, SinceSearch

FORMATS = {"csv": ("text/csv",), "jsonl": ("ndjson", "jsonl", "jsonlines", "json-seq")}
READING_BACK = 2  # requests that are kept for it
MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Inference:
    """What was found.

    Attributes:
        config: a form that is accepted, with placeholders for credentials.
        name: of the stream.
        guesses: by setting, each with its reason.
        gaps: what to fill in or look at.
        tried: in vain.
        asked: all requests.
        read_back: what reading by the configuration gave, in words.
    """

    config: Mapping[str, Any]
    name: str
    guesses: Mapping[str, Guess]
    gaps: Sequence[Gap]
    tried: Sequence[str]
    asked: Sequence[Asked]
    read_back: str


def infer(
    address: Address,
    credentials: Mapping[str, Any],
    name: str,
    *,
    most: int,
    keeper: Callable[[Mapping[str, Any]], None],
    told: Callable[[Asked], None],
) -> Inference:
    """Ask an API until its stream is known.

    Args:
        address: where it is.
        credentials: as the form has them; empty for none.
        name: for the stream.
        most: requests.
        keeper: keeps a configuration whose refresh token was rotated.
        told: hears of each request.

    Raises:
        AirbyteTracedException: the first request gave nothing that could be a stream.
    """
    config: dict[str, Any] = {"base_url": address.base_url}
    if credentials:
        config["credentials"] = dict(credentials)
    if address.headers:
        config["headers"] = _pairs(address.headers)
    stream: dict[str, Any] = {"name": name, "path": address.path, "query_params": _pairs(address.params)}
    Form.parse({**config, "streams": [stream]})  # what is wrong with it is said before anything is asked
    prober = Prober(config, stream, most - READING_BACK, keeper, told)
    seen, place = _first_answer(prober)
    if place.value:
        prober.stream["record_path"] = place.value
    assert seen.first is not None  # it could be read
    records = _records_at(place.value, seen, seen.first)
    prober.identify_by(records)
    base = prober.page_of(records, answer=replace(seen.first, count=len(records)))
    is_stable = _is_stable(prober, base)
    paging = PagingSearch(prober, address, base, is_stable=is_stable).find()
    since = Since(Guess(None, "less than two records show no cursor"))
    if len(records) > 1:
        since = SinceSearch(prober, base, address.name, is_stable=is_stable).find()
    key = _key(keys_in(records))
    prober.most = max(most, len(prober.asked) + READING_BACK)
    return _read_back(prober, address, _Found(place, paging, since, key, records))


@dataclass(frozen=True, slots=True)
class _Found:
    place: Guess
    paging: Paging
    since: Since
    key: Guess
    records: Sequence[Record]


def _first_answer(prober: Prober) -> tuple[Look, Guess]:
    """The first answer, whatever holds its records, and where they are."""
    seen = prober.look({"record_path": ROOT, **SINGLE}, {}, most_pages=1, tell=False)
    if seen.first is not None:
        place = record_place(seen.first.body)
        prober.tell(len(_records_at(place.value, seen, seen.first)))
        return seen, place
    prober.tell()
    kind = seen.asked[-1].content_type if seen.asked else ""
    for format_, names in FORMATS.items():
        if any(one in kind for one in names):
            prober.stream["format"] = format_
            seen = prober.look(SINGLE, {}, most_pages=1)
            if seen.first is not None:
                return seen, Guess(None, f"the answer is {format_} ({kind}), each line of it a record")
    raise unreadable(seen)


def _is_stable(prober: Prober, base: Page) -> bool:
    """Whether the same request gives the same answer. Without requests left nothing will be asked of parameters."""
    try:
        return len(base.ids) < 2 or prober.ask({}).is_same(base)
    except Spent:
        return True


def _records_at(path: str | None, seen: Look, answer: Answer) -> Sequence[Record]:
    if path in (ROOT, None):
        return seen.records
    found = RecordFinder.of(path).find(answer.body, is_first=True)[:MOST_RECORDS]
    return [msgspec.json.decode(record) for record in found]


def _key(keys: Sequence[Key]) -> Guess:
    """The field that tells records apart by its values and by its name."""
    named = [key for key in keys if key.is_named_so]
    if named:
        return Guess(list(named[0].fields), named[0].reason)
    shown = "; ".join(f"{' and '.join(key.fields)} ({key.reason})" for key in keys[:MOST_SHOWN])
    also = f": {shown}, but no name says so" if shown else ""
    return Guess(None, f"no field is known to tell records apart{also}. Without a key records can be appended only")


def _read_back(prober: Prober, address: Address, found: _Found) -> Inference:
    """The configuration, and a look by it."""
    prober.stream = stream = _stream(prober.stream, address, found)
    seen = prober.look({}, {}, most_pages=READING_BACK)
    key = found.key
    if key.value is not None and _repeats(seen.records, key.value):
        key = Guess(None, f"{' and '.join(key.value)} was unique on the first page, and is not on two")
        del stream["primary_key"]
    credentials, missing = placeholders(prober.config.get("credentials", {}))
    config = {**prober.config, **({"credentials": credentials} if credentials else {}), "streams": [stream]}
    Form.parse(config)  # what we write is a form that is accepted
    up_to = "its version" if urlsplit(address.base_url).path else "its host"
    guesses = {
        "base_url": Guess(address.base_url, f"the URL up to {up_to}"),
        "record_path": found.place,
        "pagination": found.paging.guess,
        "primary_key": key,
        "incremental": found.since.guess,
    }
    gaps = [*missing, *found.paging.gaps, *found.since.gaps, *_gaps(address, found.records, seen.problem)]
    read = f"{_count(len(seen.records), 'record')} in {_count(len(seen.pages), 'page')}"
    more = ", and there is more" if seen.has_more else ", and that is all" if not seen.problem else ""
    return Inference(config, stream["name"], guesses, gaps, prober.tried, prober.asked, read + more)


def _stream(asked: Mapping[str, Any], address: Address, found: _Found) -> dict[str, Any]:
    """The stream's settings: those that it was asked with, and what was found."""
    params = {**address.params, **address.pages, **address.offsets}
    params = {name: value for name, value in params.items() if name not in found.paging.replaced}
    settings = {
        **{name: asked.get(name) for name in ("name", "path", "format", "record_path")},
        "query_params": _pairs(params) or None,
        "primary_key": found.key.value,
        "pagination": found.paging.guess.value,
        "incremental": found.since.guess.value,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _gaps(address: Address, records: Sequence[Record], problem: str) -> Iterator[Gap]:
    """What is to be looked at, besides what the searches left open."""
    if address.tokens:
        names = ", ".join(address.tokens)
        advice = f"{names} of the URL led to one page and is left out: a stream begins with its first page"
        yield Gap("query_params", advice)
    if problem:
        yield Gap("the stream", f"reading it by this configuration ended with: {problem}")
    if records and all(set(record) == {"value"} for record in records):
        advice = "its entries are no objects: look for a parameter of the API that gives them, with named fields"
        yield Gap("record_path", advice)
    if not records:
        yield Gap("the stream", "it has no records: how it pages, its key and its cursor can be seen when it has")


def placeholders(credentials: Mapping[str, Any]) -> tuple[dict[str, Any], list[Gap]]:
    """Credentials without their secrets, and what is to be filled in."""
    shown = dict(credentials)
    gaps = []
    for name, value in credentials.items():
        if name in SECRET_FIELDS and value:
            words = name.replace("_", " ")
            shown[name] = _login_without(value) if name == "login_body" else f"<{words}>"
            gaps.append(Gap(f"credentials.{name}", f"your {words}", shown[name]))
    if "extra_params" in credentials:
        shown["extra_params"] = [{**pair, "value": f"<{pair['name']}>"} for pair in credentials["extra_params"]]
        gaps.append(Gap("credentials.extra_params", "their values"))
    return shown, gaps


def _login_without(body: str) -> str:
    return json.dumps({name: f"<{name}>" for name in msgspec.json.decode(body)})


def _repeats(records: Sequence[Record], fields: Sequence[str]) -> bool:
    keys = [json.dumps([value_at(record, field) for field in fields], default=str) for record in records]
    return len(set(keys)) < len(keys)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
