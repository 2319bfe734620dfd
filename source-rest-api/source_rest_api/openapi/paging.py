"""How an operation pages, seen in its parameters and in its answer. Pure.

In this order: a Link header, a token that the answer gives and a parameter takes, a next URL, the key of the last
record as a parameter, page numbers, offsets. What shows none of them is left to detection while reading (``auto``),
which takes no first page for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from source_rest_api.detection import HAS_MORE, NEXT_URLS, TOKENS
from source_rest_api.openapi.guess import Guess
from source_rest_api.openapi.names import snake
from source_rest_api.openapi.operations import Operation, Parameter
from source_rest_api.openapi.records import Records
from source_rest_api.openapi.schemas import Schemas, Shape

MOST_DEPTH = 3
LARGEST_PAGE = 1000
Settings = dict[str, Any]

PAGE_PARAMS = ("page", "page_number", "page_num", "page_no", "page_index", "current_page", "pagenumber", "pageindex")
OFFSET_PARAMS = (
    "offset", "skip", "start_index", "start_at", "page_offset", "first_result", "startindex", "start", "from",
)  # fmt: skip
SIZE_PARAMS = (
    "per_page", "page_size", "pagesize", "perpage", "limit", "page_limit", "max_results", "maxresults", "size",
    "results_per_page", "items_per_page", "count", "rows", "top", "num_results", "max_items", "max_page_size", "first",
)  # fmt: skip
TOKEN_PARAMS = (
    "cursor", "page_token", "pagetoken", "next_token", "nexttoken", "continuation_token", "continue", "page_cursor",
    "after", "page_after", "marker", "next_cursor", "pagination_token", "pagination_cursor", "start_cursor", "bookmark",
    "scroll_id", "next_page_token", "token", "page", "next", "start", "offset",
)  # fmt: skip
TOKEN_FIELDS = (
    "next_cursor", "next_page_token", "next_token", "next_page", "end_cursor", "after", "continuation_token",
    "continue",
    "next_marker", "next_offset", "next_start", "cursor", "marker", "bookmark", "scroll_id", "page_token", "token",
    "next_page_cursor", "cursor_next", "next",
)  # fmt: skip
LAST_KEY_PARAMS = ("starting_after", "after_id", "since_id", "last_id", "after")
URL_FIELDS = (
    "next", "next_url", "next_link", "next_page_url", "next_page_uri", "next_page_link", "next_uri", "odata_next_link",
)  # fmt: skip
URL_FORMATS = ("uri", "url", "uri-reference", "link")
WITH_PAGES = ("number", "size", "offset", "limit", "cursor", "after", "before", "token")

_MOST = re.compile(
    r"(?:max(?:imum)?(?: (?:value|size|limit|number of \w+))?(?: (?:is|of|allowed is))?|up to|at most|"
    r"between \d+ and|no more than|<=|1\s?(?:-|\u2013|to))[\s:=`*(]*([1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)",
    re.IGNORECASE,
)
_FROM_ZERO = re.compile(r"zero[- ]?(?:based|indexed)|0[- ]?(?:based|indexed)|(?:starts?|starting) (?:at|from|with) 0")


def pagination_of(operation: Operation, records: Records, schemas: Schemas) -> Guess:
    """The pagination to set; a Guess without a value leaves it to detection."""
    queries = {parameter.name: parameter for parameter in operation.of("query")}
    size, why_size = _size(queries, schemas)
    around = dict(_scalars(schemas, records.around, records.path))
    ends = [path for path in HAS_MORE if path in around and around[path].type in ("boolean", "")]
    more = {"has_more_path": ends[0]} if ends else {}
    found = (
        _link_header(operation)
        or _token(queries, around, schemas)
        or _next_url(around)
        or _last_key(queries, records, schemas, more)
        or _page_numbers(queries, schemas, more)
        or _offsets(queries, schemas, more)
    )
    if found is None:
        if size:
            return Guess({"pagination_type": "auto", **size}, f"no way of paging is described; {why_size}")
        return Guess(None, "no way of paging is described: it is detected while reading")
    return Guess({**found.value, **size}, f"{found.reason}; {why_size}" if why_size else found.reason)


def paging_parameters(pagination: Mapping[str, Any]) -> set[str]:
    """Parameters that a pagination sets by itself."""
    found = {str(pagination[name]) for name in ("page_param", "offset_param") if name in pagination}
    return found | ({str(pagination["size_param"])} if pagination.get("page_size") else set())


def _link_header(operation: Operation) -> Guess | None:
    if "link" not in operation.headers:
        return None
    return Guess({"pagination_type": "link_header"}, "the answer has a Link header")


def _token(queries: Mapping[str, Parameter], around: Mapping[str, Shape], schemas: Schemas) -> Guess | None:
    """The best pair of a parameter that takes a token and a field that gives one."""
    known = dict(TOKENS)
    best: tuple[int, str, str] | None = None
    for path, shape in around.items():
        if not _may_be_token(path, shape):
            continue
        field = snake(path.rsplit(".", 1)[-1])
        for name in queries:
            param = snake(name)
            if param not in TOKEN_PARAMS:
                continue
            if param == "page" and not _is_page_token(field, shape, queries[name], schemas):
                continue
            score = 4 * (known.get(path) == name) + 3 * (field in (f"next_{param}", f"{param}_next"))
            score += 2 * (field == param) + (path.count(".") == 0) - (param in ("next", "start", "offset", "token"))
            if param in ("start", "offset", "next", "page") and field not in (f"next_{param}", param, f"{param}_next"):
                continue
            if field == param and field in ("offset", "start", "page", "next"):
                continue  # what was asked for is said again
            if best is None or score > best[0]:
                best = (score, path, name)
    if best is None:
        return None
    _, path, name = best
    settings = {"pagination_type": "cursor", "token_path": path, "token_param": name}
    return Guess(settings, f"the answer's {path!r} is what the parameter {name!r} takes")


def _may_be_token(path: str, shape: Shape) -> bool:
    if snake(path.rsplit(".", 1)[-1]) not in TOKEN_FIELDS or shape.type not in ("string", "integer", "number", ""):
        return path.endswith(("cursor.next", "cursors.after")) and shape.type in ("string", "")
    return shape.text("format") not in URL_FORMATS


def _is_page_token(field: str, shape: Shape, parameter: Parameter, schemas: Schemas) -> bool:
    """A page is asked for by number, unless the answer names the next one."""
    is_text = schemas.shape(parameter.schema).type == "string"
    return field == "next_page" and (is_text or shape.type in ("integer", "number"))


def _next_url(around: Mapping[str, Shape]) -> Guess | None:
    for path in (*NEXT_URLS, *around):
        shape = around.get(path)
        if shape is None or shape.type not in ("string", ""):
            continue
        name = snake(path.rsplit(".", 1)[-1])
        above = snake(path.rsplit(".", 2)[-2]) if "." in path and not path.startswith("@") else ""
        is_link = name in URL_FIELDS or (name == "href" and above == "next")
        if is_link and (shape.text("format") in URL_FORMATS or name != "next_page"):
            settings = {"pagination_type": "next_url", "next_path": path}
            return Guess(settings, f"the answer names the next page in {path!r}")
    return None


def _last_key(
    queries: Mapping[str, Parameter], records: Records, schemas: Schemas, more: Mapping[str, str]
) -> Guess | None:
    fields = schemas.fields(records.items)
    if "id" not in fields or fields["id"].shape.kind != "scalar":
        return None
    for name in queries:
        if snake(name) in LAST_KEY_PARAMS and (snake(name) != "after" or more):
            settings = {"pagination_type": "cursor", "token_field": "id", "token_param": name, **more}
            return Guess(settings, f"the parameter {name!r} takes the id of the last record")
    return None


def _page_numbers(queries: Mapping[str, Parameter], schemas: Schemas, more: Mapping[str, str]) -> Guess | None:
    for name, parameter in _of(queries, PAGE_PARAMS):
        shape = schemas.shape(parameter.schema)
        if shape.type in ("integer", "number", "", "string"):
            start, why = _start(parameter, shape, otherwise=1)
            settings = {"pagination_type": "page", "page_param": name, "start_page": start, **more}
            return Guess(settings, f"the parameter {name!r} takes page numbers, {why}")
    return None


def _offsets(queries: Mapping[str, Parameter], schemas: Schemas, more: Mapping[str, str]) -> Guess | None:
    for name, parameter in _of(queries, OFFSET_PARAMS):
        shape = schemas.shape(parameter.schema)
        is_number = shape.type in ("integer", "number")
        if is_number or (shape.type == "" and snake(name) in ("offset", "skip", "page_offset")):
            start, why = _start(parameter, shape, otherwise=0)
            settings = {"pagination_type": "offset", "offset_param": name, "start_offset": start, "size_param": ""}
            settings |= more
            return Guess(settings, f"the parameter {name!r} takes the number of records to skip, {why}")
    return None


def _start(parameter: Parameter, shape: Shape, *, otherwise: int) -> tuple[int, str]:
    default, least = shape.facts.get("default"), shape.facts.get("minimum")
    if default in (0, 1):
        return int(default), f"beginning at {int(default)}, its default"
    if otherwise == 1 and _FROM_ZERO.search(parameter.description.lower()):
        return 0, "beginning at 0, as its description says"
    if least == 1 or (least == 0 and otherwise == 0):
        return int(least), f"beginning at {int(least)}, its minimum"
    return otherwise, f"beginning at {otherwise}, as is usual"


def _size(queries: Mapping[str, Parameter], schemas: Schemas) -> tuple[Settings, str]:
    """The parameter for the page size and the largest size that is named; nothing where none is."""
    for name, parameter in _of(queries, SIZE_PARAMS):
        shape = schemas.shape(parameter.schema)
        if shape.type not in ("integer", "number", "", "string"):
            continue
        most, why = _most(parameter, shape)
        if most:
            size = min(most, LARGEST_PAGE)
            return {"size_param": name, "page_size": size}, f"{name} {size}: {why}"
        return {}, f"{name!r} names no largest page: the API's own size is taken"
    return {}, ""


def _most(parameter: Parameter, shape: Shape) -> tuple[int, str]:
    given = shape.facts.get("maximum")
    if isinstance(given, int | float) and given >= 1:
        return int(given), "its maximum"
    found = _MOST.search(" ".join(parameter.description.split()))
    if found:
        return int(found[1].replace(",", "")), "the most that its description names"
    sizes = [size for size in shape.facts.get("enum") or () if isinstance(size, int)]
    if sizes:
        return max(sizes), "the largest of its values"
    default = shape.facts.get("default")
    if parameter.is_required:
        return (default if isinstance(default, int) and default > 0 else 100), "it is required, and names no maximum"
    return 0, ""


def _of(queries: Mapping[str, Parameter], names: tuple[str, ...]) -> Iterator[tuple[str, Parameter]]:
    """The parameters of some names, in the order of the names."""
    by_name = {snake(name): (name, parameter) for name, parameter in queries.items()}
    by_name |= {
        f"page_{snake(name).removeprefix('page_')}": (name, parameter)
        for name, parameter in queries.items()
        if name.startswith("page[") and name.removeprefix("page[").rstrip("]") in WITH_PAGES
    }
    for name in names:
        if name in by_name:
            yield by_name[name]


def _scalars(
    schemas: Schemas, properties: Mapping[str, Any], records: str, above: str = "", depth: int = 1
) -> Iterator[tuple[str, Shape]]:
    """The single values around the records, by their paths."""
    for name, node in properties.items():
        path = f"{above}{name}"
        if path == records or ("." in name and not name.startswith("@odata.")):
            continue
        shape = schemas.shape(node)
        if shape.kind == "object" and depth < MOST_DEPTH:
            yield from _scalars(schemas, shape.properties, records, f"{path}.", depth + 1)
        elif shape.kind in ("scalar", "unknown"):
            yield path, shape
