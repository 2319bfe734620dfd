"""``preview``: the first pages of one stream, with the requests that they took and what could be made of them.

The records are real and are shown: that is what it is for. Credentials are masked wherever they would appear.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets

from source_rest_api.candidates import cursors_in, keys_in
from source_rest_api.commands.arguments import add_credentials, credentials_from, file_keeper, manifest_keeper
from source_rest_api.config_file import YAML, read_document
from source_rest_api.description import pages_in_words
from source_rest_api.errors import config_error
from source_rest_api.form import AutoPages, Form, Stream
from source_rest_api.looking import Asked, Look, look, masked
from source_rest_api.sampling import Sample, schema_of
from source_rest_api.terminal import schema_lines, table

DEFAULT_PAGES = 2
MOST_REQUESTS = 50
SHOWN_RECORDS = 10
MORE, ALL = "there is more", "all pages were read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, JSON or YAML")
    parser.add_argument("--stream", metavar="NAME", help="which stream (needed if there are several)")
    parser.add_argument("--pages", type=int, default=DEFAULT_PAGES, help="how many pages to read (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print all of it as one JSON object")
    add_credentials(parser)


def run(arguments: argparse.Namespace, out: TextIO) -> int:
    """0 if the stream can be read; 1 if reading failed, after what was seen until then."""
    config = dict(read_document(arguments.config).value)
    credentials = credentials_from(arguments)
    if config.get("manifest"):
        _check_manifest(arguments, config)
    if credentials:
        config["credentials"] = credentials
    form = Form.parse(config)
    stream = _chosen(form, config, arguments.stream)
    seen = look(
        config,
        stream.name,
        most_pages=max(1, arguments.pages),
        most_requests=MOST_REQUESTS,
        keeper=manifest_keeper(arguments.config)
        if form.manifest
        else file_keeper(arguments.credentials or arguments.config),
    )
    if arguments.json:
        out.write(json.dumps(masked(as_json(stream, seen)), indent=1, ensure_ascii=False) + "\n")
    else:
        width = shutil.get_terminal_size((120, 40)).columns
        for line in as_text(form, stream, seen, width):
            out.write(filter_secrets(line) + "\n")
    if seen.problem:
        raise config_error(seen.problem)
    return 0


def as_json(stream: Stream, seen: Look) -> Mapping[str, Any]:
    """All that was seen, for programs."""
    return {
        "stream": stream.name,
        "requests": [
            {"stream": asked.stream or None, "method": asked.method, "url": asked.url, "status": asked.status,
             "milliseconds": round(asked.seconds * 1000), "bytes": asked.size, "records": asked.records}
            for asked in seen.asked
        ],
        "pagination_detected": seen.detected or None,
        "record_path": seen.record_path or None,
        "has_more": seen.has_more,
        "problem": seen.problem or None,
        "records": list(seen.records),
        "json_schema": schema_of(stream, Sample(seen.records)),
        "primary_key_candidates": [{"fields": key.fields, "reason": key.reason} for key in keys_in(seen.records)],
        "cursor_candidates": [
            {"field": cursor.field, "format": cursor.format, "order": cursor.order, "reason": cursor.reason}
            for cursor in cursors_in(seen.records)
        ],
    }  # fmt: skip


def as_text(form: Form, stream: Stream, seen: Look, width: int) -> Iterator[str]:
    """The same for people."""
    yield "Requests"
    yield from (f"  {line}" for line in request_lines(seen.asked))
    if form.manifest and (seen.records or not seen.problem):
        yield f"Pagination and records: as the manifest says; {MORE if seen.has_more else ALL}"
    elif seen.pages:
        yield f"Pagination: {_paging(form, stream, seen)}"
        yield f"Records: {_place(stream, seen)}"
    else:
        return
    yield from _section(
        f"First {min(SHOWN_RECORDS, len(seen.records))} of {len(seen.records)} records",
        table(masked(seen.records[:SHOWN_RECORDS]), width - 2),
    )
    yield from _section("Schema", schema_lines(masked(schema_of(stream, Sample(seen.records)))))
    yield from _section(
        "Primary key candidates", (f"{', '.join(key.fields)}: {key.reason}" for key in keys_in(seen.records))
    )
    cursors = cursors_in(seen.records)
    yield from _section("Cursor candidates", (f"{cursor.field}: {cursor.reason}" for cursor in cursors))


def request_lines(asked: Sequence[Asked]) -> Iterator[str]:
    """One line per request: what was asked, and what came."""
    for one in asked:
        parts = [f"{one.method} {one.url}", str(one.status)]
        if one.size is not None:
            parts.append(_size(one.size))
        if one.records is not None:
            parts.append(f"{one.records} record{'' if one.records == 1 else 's'}")
        yield "  ".join(parts)


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    found = list(lines)
    yield ""
    yield title
    yield from (f"  {line}" for line in found or ["none"])


def _paging(form: Form, stream: Stream, seen: Look) -> str:
    pages = stream.pagination or form.pagination
    words = f"{_detection(seen.detected)} (detected)" if isinstance(pages, AutoPages) else pages_in_words(pages)
    return f"{words}; {MORE if seen.has_more else ALL}"


def _detection(found: str) -> str:
    """What was found, and why it was taken."""
    if found == "single page":
        return (
            "single page, as the answer has no Link header, no next URL and no token where APIs put them, and nothing "
            "in it says that there is more"
        )
    return f"{found}, which the first answer has"


def _place(stream: Stream, seen: Look) -> str:
    if seen.record_path in ("", "."):
        return "the answer itself"
    return f"at {seen.record_path!r}" + ("" if stream.record_path else " (found: record_path is not set)")


def _check_manifest(arguments: argparse.Namespace, config: Mapping[str, Any]) -> None:
    if credentials_from(arguments):
        raise config_error("The credentials of a manifest are in its manifest_config: give none here.")
    if "refresh_token_updater" in str(config["manifest"]) and Path(arguments.config).suffix.lower() in YAML:
        raise config_error(
            "The manifest's refresh token is used once, and a new one is written into the file: give it as JSON."
        )


def _only_stream(config: Mapping[str, Any]) -> str:
    """Of a manifest."""
    from source_rest_api import manifest  # with the CDK's parser of manifests, which the form has no need of

    found = manifest.describe(config)
    if len(found.streams) == 1 and not found.dynamic_streams:
        return found.streams[0]
    raise config_error(f"--stream is needed. Streams: {', '.join([*found.streams, *found.dynamic_streams])}.")


def _chosen(form: Form, config: Mapping[str, Any], name: str | None) -> Stream:
    if form.manifest:
        return Stream(name=name or _only_stream(config), path="")  # in place of one: its name is all there is
    if name in form.names:
        return form.stream(name)
    if name is None and len(form.streams) == 1:
        return form.streams[0]
    problem = f"{name!r} is no stream" if name else "--stream is needed"
    raise config_error(f"{problem}. Streams: {', '.join(form.names)}.")


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
