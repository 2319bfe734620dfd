"""What the types of the form cannot say: rules between fields and between streams. Pure.

Each problem is one sentence that names the stream, the field and what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from source_rest_api.conditions import Condition, ConditionError
from source_rest_api.form import (
    PARENT,
    ApiKey,
    CounterCursor,
    Cursor,
    Form,
    Jwt,
    NextUrl,
    Offsets,
    Paged,
    PageNumbers,
    SessionToken,
    Stream,
    Tokens,
)
from source_rest_api.times import FormatError, check_format, parse_duration, parse_start

# What a manifest says by itself.
OF_STREAMS = (
    "base_url", "credentials", "headers", "query_params", "pagination", "incremental", "errors", "check_streams",
    "max_retries",
)  # fmt: skip
OF_ANSWERS = ("max_wait_seconds", "status_codes", "remaining_header", "reset_header")


def problems(form: Form) -> Iterator[str]:
    """Yields nothing for a good form. Later problems may assume that the earlier ones were mended."""
    yield from _way_problems(form)
    names = form.names
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"Two streams have the name {name!r}: give each its own."
    for name in form.check_streams:
        if name not in names:
            yield f"check_streams names {name!r}, which is no stream. Streams: {', '.join(names)}."
    yield from _credential_problems(form)
    if bool(form.client_certificate) != bool(form.client_key):
        yield "client_certificate and client_key belong together: give both or none."
    for stream in form.streams:
        yield from _stream_problems(stream, form)


def _way_problems(form: Form) -> Iterator[str]:
    """There are two ways into this connector, and no setting of the one has a meaning in the other."""
    if bool(form.streams) == bool(form.manifest):
        yield "Give either base_url and streams, or a manifest."
    if form.streams and not form.base_url:
        yield "base_url is missing: streams need it."
    if form.manifest_config and not form.manifest:
        yield "manifest_config is for a manifest, and there is none."
    if form.manifest:
        plain = Form()
        for name in OF_STREAMS:
            if getattr(form, name) != getattr(plain, name):
                yield f"{name} does not go with a manifest, which has its own. Remove it, or set it in the manifest."
        for name in OF_ANSWERS:
            if getattr(form.rate_limit, name) != getattr(plain.rate_limit, name):
                yield f"rate_limit.{name} does not go with a manifest: set it in the manifest's error_handler."


def _credential_problems(form: Form) -> Iterator[str]:
    match form.credentials:
        case Jwt(claims=claims) if not _is_object(claims):
            yield "credentials.claims is no JSON object."
        case SessionToken(login_body=body) if body and not _is_object(body):
            yield "credentials.login_body is no JSON object."
        case ApiKey(inject_into="body"):
            for stream in form.streams:
                if stream.method == "GET":
                    yield f"Stream {stream.name!r}: credentials that go into the body need method POST."
        case _:
            pass


def _stream_problems(stream: Stream, form: Form) -> Iterator[str]:
    here = f"Stream {stream.name!r}"
    yield from _parent_problems(stream, form)
    yield from _field_problems(stream, here)
    yield from _pagination_problems(stream, here)
    yield from _body_problems(stream, here)
    yield from _condition_problems(stream, here)
    if stream.cursor is not None:
        yield from _cursor_problems(stream.cursor, stream, here)


def _field_problems(stream: Stream, here: str) -> Iterator[str]:
    for stamp in stream.timestamps:
        yield from _format_problems(stamp.format, f"{here}, timestamps of {stamp.field!r}")
    for setting, fields in (
        ("timestamps", [stamp.field for stamp in stream.timestamps]),
        ("select_fields", stream.select_fields),
        ("drop_fields", stream.drop_fields),
    ):
        for one, other in pairwise(sorted(fields)):
            if one == other or other.startswith(f"{one}."):
                yield f"{here}: {setting} names {other!r} twice, or inside of another one."
    if stream.select_fields and stream.drop_fields:
        yield f"{here}: select_fields and drop_fields exclude each other."
    needed = [*stream.primary_key, *([stream.cursor.cursor_field] if stream.cursor else [])]
    for field in needed:
        if stream.select_fields and not any(_is_within(field, chosen) for chosen in stream.select_fields):
            yield f"{here}: select_fields leaves out {field!r}, which primary_key or incremental needs."
        if any(_is_within(field, dropped) for dropped in stream.drop_fields):
            yield f"{here}: drop_fields takes away {field!r}, which primary_key or incremental needs."
    if stream.schema and not _is_schema(stream.schema):
        yield f"{here}: schema is no JSON Schema: write an object with `properties`, each of which is an object."
    if stream.format == "columns" and not stream.record_path:
        yield f"{here}: record_path says where the object of columns is; '.' is the answer itself."


def _is_within(field: str, place: str) -> bool:
    return field == place or field.startswith(f"{place}.")


def _pagination_problems(stream: Stream, here: str) -> Iterator[str]:
    pages = stream.pagination
    if not isinstance(pages, Paged):
        return
    if pages.stop_when_shorter and pages.page_size is None:
        yield f"{here}: stop_when_shorter needs page_size."
    if isinstance(pages, Tokens) and sum(map(bool, (pages.token_path, pages.token_header, pages.token_field))) != 1:
        yield f"{here}: pagination needs exactly one of token_path, token_header and token_field."
    if pages.max_pages and stream.cursor is not None and not stream.cursor.is_ascending:
        yield f"{here}: max_pages would leave records out for ever, as the state moves on; set is_ascending, or none."
    counts = isinstance(pages, PageNumbers | Offsets)
    if counts and not pages.stop_on_empty and not (pages.asks_the_answer or pages.max_pages):
        yield (
            f"{here}: without stop_on_empty, has_more_path, is_last_path, total_path, total_pages_path or max_pages is "
            "needed."
        )
    if stream.method == "GET" and pages.inject_into == "body":
        yield f"{here}: pagination that goes into the body needs method POST."
    if not stream.answers_json:
        for setting in pages.asks_the_answer:
            yield f"{here}: pagination.{setting} looks into a JSON answer; {stream.format} has none."
        if isinstance(pages, NextUrl) or (isinstance(pages, Tokens) and pages.token_path):
            yield f"{here}: {stream.format} can be paged by page, offset, link_header, token_header and token_field."
        if stream.record_path not in ("", "."):
            yield f"{here}: record_path looks into a JSON answer; {stream.format} has none."


def _body_problems(stream: Stream, here: str) -> Iterator[str]:
    if stream.method == "GET":
        if stream.body:
            yield f"{here}: a body needs method POST."
        if stream.cursor is not None and stream.cursor.inject_into == "body":
            yield f"{here}: a cursor that goes into the body needs method POST."
    elif stream.body:
        try:
            msgspec.json.decode(PARENT.sub("0", stream.body))
        except msgspec.DecodeError:
            yield f"{here}: body is no JSON."


def _condition_problems(stream: Stream, here: str) -> Iterator[str]:
    for setting, text in (
        ("filter", stream.filter),
        ("errors.error_when", stream.errors.error_when if stream.errors else ""),
    ):
        if text:
            try:
                Condition(text)
            except ConditionError as problem:
                yield f"{here}: {setting} {problem}."
    if stream.errors is not None and stream.errors.error_when and not stream.answers_json:
        yield f"{here}: errors.error_when looks into a JSON answer; {stream.format} has none."


def _cursor_problems(cursor: Cursor, stream: Stream, here: str) -> Iterator[str]:
    if "{" in cursor.cursor_field:
        yield f"{here}: incremental.cursor_field is a path such as properties.updated, not a template."
    if isinstance(cursor, CounterCursor):
        if stream.parents:
            yield f"{here}: incremental counter does not go with parents; take datetime, or none."
        return
    for format_ in filter(None, (cursor.cursor_format, cursor.request_format)):
        yield from _format_problems(format_, f"{here}, incremental")
    for field in ("step", "granularity", "lookback"):
        text = getattr(cursor, field)
        if text:
            try:
                parse_duration(text)
            except FormatError as problem:
                yield f"{here}, incremental.{field}: {problem}"
    if cursor.start:
        try:
            parse_start(cursor.start)
        except FormatError as problem:
            yield f"{here}, incremental.start: {problem}"
    if cursor.step and not (cursor.start and cursor.start_param and cursor.end_param):
        yield f"{here}: incremental.step cuts time into windows, which needs start, start_param and end_param."
    if cursor.newest_first and (cursor.is_ascending or cursor.step):
        yield f"{here}: incremental.newest_first goes with neither is_ascending nor step."
    if cursor.is_ascending and (cursor.step or stream.parents):
        yield f"{here}: incremental.is_ascending goes with neither step nor parents; their windows save state anyway."


def _format_problems(format_: str, here: str) -> Iterator[str]:
    try:
        check_format(format_)
    except FormatError as problem:
        yield f"{here}: {problem}"


def _parent_problems(stream: Stream, form: Form) -> Iterator[str]:
    here = f"Stream {stream.name!r}"
    for parent in stream.parents:
        if bool(parent.values) == bool(parent.stream) or bool(parent.stream) != bool(parent.field):
            yield f"{here}: an entry of parents has either stream and field, or values."
        if parent.stream and parent.stream not in form.names:
            yield f"{here}: its parent {parent.stream!r} is no stream. Streams: {', '.join(form.names)}."
    circle = _circle(stream, form)
    if circle:
        yield f"{here}: its parents form a circle ({' -> '.join(circle)})."
        return
    known = form.parent_names(stream)
    for name in sorted({name for name in known if known.count(name) > 1}):
        yield f"{here}: two values of its parents have the name {name!r}: give each entry its own with `as`."
    yield from _template_problems(stream, known, here)


def _template_problems(stream: Stream, known: list[str], here: str) -> Iterator[str]:
    texts = [stream.path, stream.body, *(pair.value for pair in [*stream.headers, *stream.query_params])]
    used = {name for text in texts for name in PARENT.findall(text)}
    for text in texts:
        if "{{" in PARENT.sub("", text):
            yield f"{here}: only {{{{ parent.<name> }}}} is understood in path, headers, query_params and body."
    for name in sorted(used - set(known)):
        yield f"{here} uses {{{{ parent.{name} }}}}, but no entry of its parents has `as: {name}`."
    if stream.parents and not used & {parent.as_name for parent in stream.parents}:
        wanted = f"{{{{ parent.{stream.parents[0].as_name} }}}}"
        yield f"{here} has a parent, but {wanted} is nowhere in its path, headers, query_params or body."


def _circle(stream: Stream, form: Form) -> list[str]:
    """The names on a way from the stream through parents back to one of them; empty if there is none."""

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way, name]
        for above in form.stream(name).parent_streams:
            if above in form.names:
                found = search(above, [*way, name])
                if found:
                    return found
        return []

    return search(stream.name, [])


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _is_object(text: str) -> bool:
    return isinstance(_decoded(text), dict)


def _is_schema(text: str) -> bool:
    found = _decoded(text)
    properties = found.get("properties") if isinstance(found, dict) else None
    return isinstance(properties, dict) and all(isinstance(field, dict) for field in properties.values())
