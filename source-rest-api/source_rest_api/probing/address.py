"""What the command line says of the API: a URL and headers, taken apart. Pure.

A command line stands in process lists and in the shell's history: what looks like a secret is refused, with the way it
can be given. Parameters that page are set aside, since a stream begins with its first page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.description import is_secret_name
from source_rest_api.errors import config_error
from source_rest_api.openapi.names import VERSION, snake
from source_rest_api.openapi.paging import SIZE_PARAMS

PAGES = {"page", "page_number", "page_num", "page_no", "page_index", "pagenumber", "pageindex", "current_page", "p",
         "pg"}  # fmt: skip
OFFSETS = {"offset", "skip", "start_index", "start_at", "startindex", "page_offset"}
PAGE_TOKENS = {
    "page_token", "next_token", "continuation_token", "pagination_token", "next_page_token", "pagetoken", "nexttoken",
    "cursor", "page_cursor", "next_cursor", "starting_after",
}  # fmt: skip
_AS_CREDENTIALS = re.compile(r"(bearer|basic|token|apikey|digest)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream is, and how it is asked for.

    Attributes:
        base_url: what the other streams of the API will have too.
        path: of this one.
        name: for it.
        params: its query, without what pages.
        headers: of every request.
        pages, offsets, sizes: parameters of the URL that page, with their values.
        tokens: parameters of the URL that led to one page, and are left out.
    """

    base_url: str
    path: str
    name: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    pages: Mapping[str, str]
    offsets: Mapping[str, str]
    sizes: Mapping[str, str]
    tokens: Sequence[str]


def parse_address(url: str, headers: Sequence[str] = (), *, public: Sequence[str] = ()) -> Address:
    """Take a URL apart.

    Args:
        url: as people copy it.
        headers: each as ``Name: value``.
        public: names of parameters and headers that hold no secret, whatever they are called.

    Raises:
        AirbyteTracedException: a config_error; it is no URL, or it holds what looks like a secret.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise config_error("This is no URL: give one that begins with https:// or http://.")
    if "@" in parts.netloc:
        raise config_error(
            "The URL holds a user and a password. Leave them out, and give them by --credentials FILE, with "
            '{"auth_type": "basic", "username": "...", "password": "..."} in the file.'
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    for name, _ in pairs:
        if is_secret_name(name) and snake(name) not in PAGE_TOKENS and name not in public:
            raise _secret(f"parameter {name!r}", f"--api-key-name {name!r} --api-key-in query", name)
    base_url, path = _split(f"{parts.scheme}://{parts.netloc}", parts.path)
    counts = Counter(name for name, _ in pairs)
    repeated = [(name, value) for name, value in pairs if counts[name] > 1]  # the form's parameters are each once
    params = {name: value for name, value in pairs if counts[name] == 1}
    numbers = {name: value for name, value in params.items() if value.isdigit()}
    pages = {name: value for name, value in numbers.items() if snake(name) in PAGES}
    offsets = {name: value for name, value in numbers.items() if snake(name) in OFFSETS}
    tokens = [name for name in params if snake(name) in PAGE_TOKENS]
    return Address(
        base_url=base_url,
        path=path + (f"?{urlencode(repeated)}" if repeated else ""),
        name=_name(parts.path),
        params={name: value for name, value in params.items() if name not in {*pages, *offsets, *tokens}},
        headers=dict(_header(text, public) for text in headers),
        pages=pages,
        offsets=offsets,
        sizes={name: value for name, value in numbers.items() if snake(name) in SIZE_PARAMS and int(value) > 0},
        tokens=tokens,
    )


def _header(text: str, public: Sequence[str]) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not name:
        raise config_error("A header is given as --header 'Name: value'.")
    if name not in public and (is_secret_name(name) or _AS_CREDENTIALS.match(value)):
        is_bearer = name.lower() == "authorization"
        raise _secret(f"header {name!r}", "" if is_bearer else f"--api-key-name {name!r}", name)
    return name, value


def _secret(what: str, how: str, name: str) -> AirbyteTracedException:
    way = f"--api-key-env VARIABLE {how}" if how else "--bearer-env VARIABLE"
    return config_error(
        f"The {what} looks like a secret, and a command line stands in process lists and in the shell's history. Leave "
        f"it out, put its value into an environment variable and give {way}, or give --credentials FILE. If it is no "
        f"secret, add --public {name!r}."
    )


def _split(origin: str, path: str) -> tuple[str, str]:
    """The base URL ends behind the API's version, if the path begins with one."""
    segments = path.split("/")[1:]
    count = 0
    while count + 1 < len(segments) and VERSION.fullmatch(segments[count]):
        count += 1
    return "/".join([origin, *segments[:count]]), "/" + "/".join(segments[count:])


def _name(path: str) -> str:
    """The last word of a path: ``/v1/users/42/orders.json`` are orders."""
    words = [segment.partition(".")[0] for segment in path.split("/")]
    named = [snake(word) for word in words if re.search(r"[A-Za-z]", word) and not VERSION.fullmatch(word)]
    return next(filter(None, reversed(named)), "records")
