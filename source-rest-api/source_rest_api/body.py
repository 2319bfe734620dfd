"""From the bytes of an answer to its records, strictly, without parsing a record. Pure.

A record is a slice of the body (``msgspec.Raw``): the API's own text of every number and string reaches the
destination. The grammar of the whole body is checked; what is no JSON, no UTF-8, or not where ``record_path`` says it
is raises ``BodyError``. Nothing of the body is in a message but names of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypedDict, Union

import msgspec
from msgspec import UNSET, Raw

WELL_KNOWN = ("data", "results", "items", "records", "features", "value", "values", "rows", "entries", "list", "result")
HAL = "_embedded"  # whose one list has a name of its own
MOST_NAMED_KEYS = 10
MOST_OUTLINE = 65_536
ANY_KEY = "*"
PLACE = re.compile(r"0|[1-9]\d?")  # in a list; larger numbers are keys of objects, such as ids
NO_FIELD = re.compile(r"""["\\\x00-\x1f]""")  # in a key: no field of a struct can have it

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_COLUMNS = msgspec.json.Decoder(dict[str, list[Raw]])
_RAW = msgspec.json.Decoder(Raw)
_ENCODE = msgspec.json.Encoder().encode


class BodyError(ValueError):
    """The answer is not what the form says. The message is safe to show."""


def clean(body: bytes) -> bytes:
    """The body of a JSON answer as one line of checked UTF-8, without a byte order mark.

    Raises:
        BodyError: it is no UTF-8, or has line breaks and is no JSON.
    """
    body = as_text(body)
    if b"\n" in body or b"\r" in body:
        # The grammar first: in strings a raw line break is an error, so that only white space is removed.
        _decode(_RAW, body)
        body = body.translate(None, b"\r\n")
    return body


def as_text(body: bytes) -> bytes:
    """The body without a byte order mark. Raises BodyError if it is no UTF-8."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        if not body.isascii():
            body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyError("is not UTF-8") from None
    return body


class RecordFinder:
    """Finds the list of records by a path; ``()`` is the root, ``None`` looks for the list itself.

    A ``*`` in the path takes all values of a list or an object. The keys of an object become the field ``_key`` of the
    records below it (``_key_2`` for the next object further out, and so on).

    Args:
        path: see above.
        in_columns: at the end of the path is no list, but an object of one list per field.
    """

    def __init__(self, path: Sequence[str] | None, *, in_columns: bool = False):
        self._given = path
        self._in_columns = in_columns
        stars = [index for index, key in enumerate(path or ()) if key == ANY_KEY]
        self._rest = tuple(path[stars[0] :]) if path is not None and stars else ()
        self.path = None if path is None else tuple(path[: stars[0]] if stars else path)
        self._decoder = None if self.path is None else leaf_decoder(self.path, Raw, in_lists=True)

    @classmethod
    def of(cls, record_path: str, *, in_columns: bool = False) -> RecordFinder:
        """By the form's text: empty looks for the list, ``.`` is the root."""
        if not record_path:
            return cls(None)
        return cls(() if record_path == "." else record_path.split("."), in_columns=in_columns)

    @property
    def text(self) -> str:
        """The path as the form would have it; of one that is looked for, once it is found."""
        path = self.path if self._given is None else self._given
        return ".".join(path) or "." if path is not None else ""

    def find(self, body: bytes, *, is_first: bool) -> list[Raw]:
        """The records of one page, each as JSON text.

        Args:
            body: as ``clean`` left it.
            is_first: on the first page a missing path is an error; on a later one it is an empty page.

        Raises:
            BodyError: no JSON, or no records where they should be.
        """
        if self.path is None:
            self.path = _look_for_records(body)
            self._decoder = leaf_decoder(self.path, Raw)
        assert self._decoder is not None  # set with the path
        try:
            found = leaf(self._decoder.decode(body), self.path)
        except msgspec.ValidationError:
            found = UNSET
        except msgspec.DecodeError as cause:
            raise BodyError(f"is no JSON ({cause})") from None
        if found is UNSET:
            if is_first:
                raise BodyError(f"has no {'.'.join(self.path) or 'list'!r}; it has {_shape(body)}. Set record_path")
            return []
        if self._rest:
            return list(self._spread(found, self._rest, (), ".".join(self.path) or "its root"))
        return self._at_end(found, self.path)

    def _at_end(self, found: Raw, path: Sequence[str]) -> list[Raw]:
        return _rows(found, path) if self._in_columns else _as_list(found, path)

    def _spread(self, found: Raw, rest: Sequence[str], outer: tuple[str, ...], where: str) -> Iterator[Raw]:
        """The records below a path that begins with ``*``; what has not the rest of the path has no records."""
        start = bytes(found)[:1]
        if bytes(found) == b"null":
            return
        if start not in (b"[", b"{"):
            raise BodyError(f"has neither a list nor an object at {where!r}, whose values could be records")
        entries: Iterable[tuple[tuple[str, ...], Raw]]
        if start == b"[":
            entries = ((outer, item) for item in _decode(_LIST, found))
        else:
            entries = (((key, *outer), item) for key, item in _decode(_FIELDS, found).items())
        rest = rest[1:]
        cut = rest.index(ANY_KEY) if ANY_KEY in rest else len(rest)
        decoder = leaf_decoder(rest[:cut], Raw, in_lists=True)
        for names, item in entries:
            below = value_of(item, decoder, rest[:cut])
            if below is None:
                continue
            if cut < len(rest):
                yield from self._spread(below, rest[cut:], names, ".".join((where, ANY_KEY, *rest[:cut])))
            else:
                is_record = not rest and not self._in_columns
                for record in [wrapped(below)] if is_record else self._at_end(below, rest):
                    yield _with_keys(record, names)


def keys(path: str) -> list[str]:
    """The keys of a path that are joined by dots; the dot in names such as ``@odata.nextLink`` joins nothing."""
    return re.split(r"(?<!@odata)\.", path)


def leaf_decoder(path: Sequence[str], leaf_type: Any, *, in_lists: bool = False) -> msgspec.json.Decoder[Any]:
    """A decoder that looks at one path only: all else is checked as JSON and never built.

    Args:
        path: keys of objects.
        leaf_type: what stands at its end.
        in_lists: whether a small number is a place in a list, too.
    """
    return _leaf_decoder(tuple(path), leaf_type, in_lists)


@lru_cache(maxsize=512)
def _leaf_decoder(path: tuple[str, ...], leaf_type: Any, in_lists: bool) -> msgspec.json.Decoder[Any]:
    for key in reversed(path):
        if in_lists and PLACE.fullmatch(key):
            leaf_type = _listed_or_keyed(key, leaf_type)
        elif NO_FIELD.search(key):
            leaf_type = _keyed(key, leaf_type)
        else:
            leaf_type = msgspec.defstruct("At", [("at", leaf_type, UNSET)], rename={"at": key}, gc=False)
    return msgspec.json.Decoder(leaf_type)


def _listed_or_keyed(key: str, leaf_type: Any) -> Any:
    """The item of a list, or the value of an object. Of two structs msgspec would not know which one is meant."""
    before = [(f"before_{number}", Raw, UNSET) for number in range(int(key))]
    listed = msgspec.defstruct("AtPlace", [*before, ("at", leaf_type, UNSET)], array_like=True, gc=False)
    keyed = _keyed(key, leaf_type)
    return Union[listed, keyed]  # noqa: UP007  # of values, not of names


def _keyed(key: str, leaf_type: Any) -> Any:
    return TypedDict("AtKey", {key: leaf_type}, total=False)  # type: ignore[operator]  # the key is known at run time only


def leaf(found: Any, path: Sequence[str]) -> Any:
    """What such a decoder found; UNSET if some key is missing."""
    for key in path:
        if found is UNSET:
            return UNSET
        found = found.get(key, UNSET) if type(found) is dict else found.at
    return found


def value_at(body: bytes, path: Sequence[str]) -> Any:
    """The value at a path, or None if there is none. Raises BodyError if the body is no JSON."""
    try:
        found = leaf(leaf_decoder(path, Any, in_lists=True).decode(body), path)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    return None if found is UNSET else found


def outline(body: bytes) -> dict[str, Any]:
    """The root object without its lists and its large values. Raises BodyError if the body is no JSON."""
    try:
        fields = _FIELDS.decode(body)
    except msgspec.ValidationError:
        return {}
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    return {
        name: msgspec.json.decode(raw)
        for name, raw in fields.items()
        if memoryview(raw)[0] != 0x5B and len(memoryview(raw)) <= MOST_OUTLINE
    }


def value_in(value: Any, path: Sequence[str]) -> Any:
    """The value at a path of a parsed one, or None if there is none."""
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and PLACE.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def raw_at(body: bytes | Raw, path: Sequence[str]) -> bytes | None:
    """The JSON text of the value at a path, or None if there is none. Raises BodyError if the body is no JSON."""
    try:
        found = leaf(leaf_decoder(path, Raw, in_lists=True).decode(body), path)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    return None if found is UNSET else bytes(found)


def value_of(record: Raw, decoder: msgspec.json.Decoder[Any], path: Sequence[str]) -> Any:
    """The value that a ``leaf_decoder`` of a path finds in a record, or None if there is none."""
    try:
        found = leaf(decoder.decode(record), path)
    except msgspec.ValidationError:
        return None
    return None if found is UNSET else found


def wrapped(item: Raw) -> Raw:
    """An array may hold scalars and lists: each becomes a record with one field."""
    return item if memoryview(item)[0] == 0x7B else Raw(b'{"value":%b}' % bytes(item))


def _as_list(found: Raw, path: Sequence[str]) -> list[Raw]:
    text = bytes(found)[:1]
    if text == b"[":
        return [item if memoryview(item)[0] == 0x7B else wrapped(item) for item in _decode(_LIST, found)]
    if text == b"{":
        return [found]
    if bytes(found) == b"null":
        return []
    raise BodyError(f"has a single value at {'.'.join(path) or 'its root'!r}, where a list or an object is wanted")


def _rows(found: Raw, path: Sequence[str]) -> list[Raw]:
    """The records of an object of parallel lists, one list per field. What is not as long as the others is an error."""
    where = repr(".".join(path)) if path else "its root"
    if bytes(found) == b"null":
        return []
    try:
        columns = _COLUMNS.decode(found)
    except msgspec.ValidationError:
        raise BodyError(f"has no object of lists at {where}, as format columns wants") from None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BodyError(f"has lists of different lengths at {where}: {_lengths_in_words(lengths)}")
    return [Raw(_ENCODE(dict(zip(columns, row, strict=True)))) for row in zip(*columns.values(), strict=True)]


def _lengths_in_words(lengths: Mapping[str, int]) -> str:
    """The shortest and the longest, by name."""
    short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    return f"{short!r} has {lengths[short]} values, {long!r} has {lengths[long]}"


def _with_keys(record: Raw, names: tuple[str, ...]) -> Raw:
    if not names:
        return record
    injected = {f"_key_{number}" if number > 1 else "_key": name for number, name in enumerate(names, 1)}
    return Raw(msgspec.json.encode({**injected, **_FIELDS.decode(record)}))


def _look_for_records(body: bytes) -> tuple[str, ...]:
    if body.lstrip()[:1] == b"[":
        return ()
    try:
        fields = _FIELDS.decode(body)
    except msgspec.ValidationError:
        raise BodyError("is neither a list nor an object") from None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    lists = [name for name, raw in fields.items() if bytes(raw)[:1] == b"["]
    best = [name for name in WELL_KNOWN if name in lists]
    if len(lists) == 1 or best:
        return ((best or lists)[0],)
    if not lists:
        for name in (*WELL_KNOWN, HAL):
            if name in fields and bytes(fields[name])[:1] == b"{":
                inner = [key for key, raw in _FIELDS.decode(fields[name]).items() if bytes(raw)[:1] == b"["]
                inside = [key for key in WELL_KNOWN if key in inner]
                if name == HAL and len(inner) == 1:
                    inside = inner
                if inside:
                    return (name, inside[0])
    problem = (
        f"has several lists ({', '.join(sorted(lists))})" if lists else f"has no list of records; it has {_shape(body)}"
    )
    raise BodyError(f"{problem}. Set record_path ('.' is the answer itself)")


def _shape(body: bytes) -> str:
    """What is at the root, by names of keys."""
    try:
        names = sorted(_FIELDS.decode(body))
    except msgspec.MsgspecError:
        return "a list at its root" if body.lstrip()[:1] == b"[" else "no object at its root"
    shown = ", ".join(names[:MOST_NAMED_KEYS]) + (", ..." if len(names) > MOST_NAMED_KEYS else "")
    return f"the keys {shown}" if names else "no keys"


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | Raw) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
