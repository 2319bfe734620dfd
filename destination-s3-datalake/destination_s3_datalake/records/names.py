"""Airbyte names -> Glue and Hive names: lower-case, ASCII, at most 255 bytes, collision-free and stable. Pure.

A name that would collide gets ``_`` and 8 hexadecimal digits of the SHA-256 of the original, so that it does not depend
on the order of columns. Names that a table has already (its ``airbyte_columns`` parameter) always win.
Rules: Hive and Athena need lower case and know no other characters unquoted; 255 bytes is Glue's limit.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

MOST_BYTES = 255
SUFFIX_BYTES = 9
META_COLUMNS = (
    "_airbyte_raw_id",
    "_airbyte_extracted_at",
    "_airbyte_generation_id",
    "_airbyte_meta",
    "_airbyte_extra",
)
READER_COLUMNS = ("file_row_number", "file_index", "filename")  # DuckDB's own names for where a row was read


def column_names(fields: Sequence[str], known: Mapping[str, str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Field -> column name. ``known`` are the names that the table uses already, ``reserved`` those of its keys."""
    taken = {*known.values(), *reserved, *META_COLUMNS, *READER_COLUMNS}
    out = {field: known[field] for field in fields if field in known}
    plain: dict[str, list[str]] = {}
    for field in fields:
        if field not in known:
            plain.setdefault(normalized(field), []).append(field)
    for name, candidates in plain.items():
        # Of several fields with one plain name none gets it, unless it is that very name: independent of their order.
        owner = name if name in candidates else (candidates[0] if len(candidates) == 1 else None)
        for field in candidates:
            free = field == owner and name not in taken
            out[field] = name if free else with_suffix(name, suffix(field))
            taken.add(out[field])
    return out


def table_name(namespace: str | None, stream: str) -> str:
    """Table of a stream; with ``namespace`` that of ``namespace_handling: table_prefix``."""
    return normalized(stream) if namespace is None else normalized(f"{normalized(namespace)}__{normalized(stream)}")


def database_name(name: str) -> str:
    """Glue database of a namespace or of the configured name."""
    return normalized(name)


def identity_suffix(namespace: str | None, stream: str) -> str:
    """What tells two streams apart whose tables would have one name."""
    return suffix(json.dumps([namespace, stream]))


def folder_name(name: str) -> str:
    """Folder of a table or database: readers hide paths that begin with ``_`` or ``.``."""
    return f"x{name}" if name[:1] in ("_", ".") else name


def normalized(name: str) -> str:
    """The plain name, before collisions."""
    folded = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).lower()
    plain = re.sub(r"[^a-z0-9_]", "_", folded) or "_"
    if len(plain) > MOST_BYTES:
        return with_suffix(plain, suffix(name))
    return plain


def with_suffix(name: str, ending: str) -> str:
    """``name_ending``, shortened to fit."""
    return f"{name[: MOST_BYTES - SUFFIX_BYTES]}_{ending}"


def suffix(original: str) -> str:
    """8 hexadecimal digits of the original's SHA-256."""
    return hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def is_collision_free(names: Iterable[str]) -> bool:
    """Whether all names differ."""
    listed = list(names)
    return len(set(listed)) == len(listed)
