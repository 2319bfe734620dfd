"""What is put in the place of the CDK's own parts while a manifest runs, and taken away again behind it.

- Numbers keep their digits, and an answer that is not what its decoder reads is an error: the CDK rounds the one and
  makes zero records of the other, in silence.
- Every connection passes the form's network settings, also those that the CDK opens by itself to fetch tokens.
- A configuration that the CDK writes back (rotated refresh tokens) goes back as this connector's: as manifest_config.

The CDK has no setting for any of these. Its version is pinned; a name that is gone fails at once.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, ClassVar

import ijson
import msgspec
import requests
from airbyte_cdk.config_observation import emit_configuration_as_airbyte_control_message
from airbyte_cdk.sources.declarative.decoders import JsonDecoder, XmlDecoder, ZipfileDecoder
from airbyte_cdk.sources.declarative.decoders.composite_raw_decoder import (
    CompositeRawDecoder,
    JsonItemsParser,
    JsonLineParser,
    JsonParser,
)
from airbyte_cdk.sources.declarative.parsers import model_to_component_factory as factory
from airbyte_cdk.sources.streams.http.requests_native_auth import oauth
from airbyte_cdk.sources.utils.transform import TypeTransformer
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from urllib3 import HTTPResponse

from source_rest_api.errors import config_error, origin
from source_rest_api.exact_json import ExactFloat, exact_float, is_number, loads
from source_rest_api.exchange import strip_credentials
from source_rest_api.form import SHARED, Form, without_ours
from source_rest_api.formats import TooLarge
from source_rest_api.network import adapter_of, read_body
from source_rest_api.streams import CONNECT_SECONDS
from source_rest_api.tokens import KEEPER
from source_rest_api.watching import MANIFEST, Watcher, watcher_of

_convert = TypeTransformer.default_convert


@contextmanager
def parts_for(form: Form, outer: Mapping[str, Any]) -> Iterator[None]:
    """Put them in place.

    Args:
        form: for its limits and its network.
        outer: the connector's whole configuration, for what is written back.
    """
    limit = form.max_response_mb << 20
    adapter = ManifestAdapter(form, watcher_of(outer))

    def emit(config: MutableMapping[str, Any]) -> None:
        keep_configuration(outer, config)

    replaced: Sequence[tuple[Any, str, Any]] = [
        (factory, "JsonDecoder", ExactJsonDecoder),
        (factory, "JsonParser", type("BoundedJsonParser", (ExactJsonParser,), {"limit": limit})),
        (factory, "JsonLineParser", ExactLineParser),
        (factory, "JsonItemsParser", ExactItemsParser),
        (factory, "CompositeRawDecoder", StrictRawDecoder),
        (factory, "XmlDecoder", ExactXmlDecoder),
        (factory, "ZipfileDecoder", type("BoundedZipfileDecoder", (ExactZipDecoder,), {"limit": limit})),
        (TypeTransformer, "default_convert", staticmethod(exact_convert)),
        (oauth, "emit_configuration_as_airbyte_control_message", emit),
        (requests.Session, "get_adapter", lambda session, url: adapter),
    ]
    with _replacing(replaced):
        yield


def keep_configuration(outer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Give the platform, or who keeps it in its place, the connector's configuration with another manifest_config."""
    keeper = outer.get(SHARED, {}).get(KEEPER, emit_configuration_as_airbyte_control_message)
    keeper(written_back(outer, config))


def written_back(outer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The connector's configuration with another manifest_config."""
    return {**without_ours(outer), "manifest_config": msgspec.json.encode(config).decode()}


@contextmanager
def _replacing(parts: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in parts]  # KeyError: it is not there any more
    try:
        for owner, name, part in parts:
            setattr(owner, name, part)
        yield
    finally:
        for owner, name, part in before:
            setattr(owner, name, part)


# --- decoders -------------------------------------------------------------------------------------------------------


class ExactJsonDecoder(JsonDecoder):
    """JSON answers. Where the CDK's yields nothing for what is no JSON, this one fails, unless the status is an error
    that the manifest ignores."""

    def decode(self, response: requests.Response) -> Any:
        """Part of the CDK's interface."""
        body = response.content
        if not body.strip():
            yield {}
            return
        try:
            found = loads(body)
        except ValueError:
            if response.ok:
                raise wrong(response, "is no JSON") from None
            found = {}
        yield from found or [{}] if isinstance(found, list) else [{} if found is None else found]


class ExactJsonParser(JsonParser):
    """JSON inside of a file, of at most ``limit`` bytes."""

    limit: ClassVar[int]

    def parse(self, data: Any) -> Any:
        """Part of the CDK's interface."""
        body = data.read(self.limit + 1)
        if len(body) > self.limit:
            raise too_large(self.limit)
        try:
            found = loads(body)
        except ValueError:
            raise config_error("A file in the answer is no JSON. Check the manifest's decoder.") from None
        yield from found if isinstance(found, list) else [found]


class ExactLineParser(JsonLineParser):
    """Lines of JSON. A line that is none is an error, and not left out."""

    def parse(self, data: Any) -> Any:
        """Part of the CDK's interface."""
        for number, line in enumerate(data, 1):
            if not line.strip():
                continue
            try:
                yield loads(line)
            except ValueError:
                raise config_error(f"Line {number} of the answer is no JSON. Check the manifest's decoder.") from None


class ExactItemsParser(JsonItemsParser):
    """The items of one list in a large document."""

    def parse(self, data: Any) -> Any:
        """Part of the CDK's interface."""
        try:
            for item in ijson.items(data, f"{self.items_path}.item"):
                yield _with_floats(item)
        except (ijson.JSONError, UnicodeDecodeError):
            raise config_error("The answer is no JSON, or ends too early. Check the manifest's decoder.") from None


class StrictRawDecoder(CompositeRawDecoder):
    """Answers that are files. One with an error status that the manifest ignores holds no records."""

    def decode(self, response: requests.Response) -> Any:
        """Part of the CDK's interface."""
        try:
            yield from super().decode(response)
        except AirbyteTracedException:
            if response.ok:
                raise
        except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError):
            if response.ok:
                raise wrong(response, "is no file of the kind that its decoder reads, or ends too early") from None


class ExactXmlDecoder(XmlDecoder):
    """XML answers. Where the CDK's yields nothing for what is no XML, this one fails."""

    def decode(self, response: requests.Response) -> Any:
        """Part of the CDK's interface."""
        found = list(super().decode(response))
        if found == [{}] and response.ok and response.content.strip():
            raise wrong(response, "is no XML")
        yield from found


class ExactZipDecoder(ZipfileDecoder):
    """Zip files that unpack to at most ``limit`` bytes."""

    limit: ClassVar[int]

    def decode(self, response: requests.Response) -> Any:
        """Part of the CDK's interface."""
        try:
            with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except zipfile.BadZipFile:
            raise wrong(response, "is no zip file") from None
        if size > self.limit:
            raise too_large(self.limit)
        yield from super().decode(response)


def exact_convert(original: Any, schema: dict[str, Any]) -> Any:
    """As the CDK's conversion of a value to its schema's type, but a number loses no digit by it."""
    found = _convert(original, schema)
    if type(found) is not float or isinstance(original, bool):
        return found
    if isinstance(original, ExactFloat) or (isinstance(original, int) and int(found) != original):
        return original
    if isinstance(original, str) and is_number(original):
        return exact_float(original)
    return found


def wrong(response: requests.Response, problem: str) -> AirbyteTracedException:
    """A config_error about an answer, without its text."""
    kind = response.headers.get("Content-Type", "no content type")
    return config_error(
        f"The answer of {origin(response.url)} ({response.status_code}, {kind}) {problem}. Check the manifest's url "
        "and decoder."
    )


def too_large(limit: int) -> AirbyteTracedException:
    """A config_error about max_response_mb."""
    return config_error(f"An answer is larger than max_response_mb ({limit >> 20}). Ask for less, or raise it.")


def _with_floats(value: Any) -> Any:
    if isinstance(value, Decimal):
        return exact_float(str(value))
    if isinstance(value, dict):
        return {name: _with_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_floats(inner) for inner in value]
    return value


# --- network --------------------------------------------------------------------------------------------------------


def _closed(body: bytes, response: requests.Response) -> HTTPResponse:
    """An answer that has come, for decoders that read from the connection."""
    return HTTPResponse(
        body=io.BytesIO(body),
        headers=response.raw.headers,
        status=response.raw.status,
        reason=response.raw.reason,
        version=response.raw.version,
        preload_content=False,
        decode_content=False,
    )


class ManifestAdapter(requests.adapters.HTTPAdapter):
    """The form's connections under every request of a manifest: addresses, certificates, time-outs, size, redirects.

    Args:
        form: for all of that.
        watcher: who looks on, if anybody; which stream a request is for is not known here.
    """

    def __init__(self, form: Form, watcher: Watcher | None = None):
        super().__init__()
        self._form = form
        self._watcher = watcher
        self._inner = adapter_of(form)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, *rest: Any, **more: Any
    ) -> requests.Response:
        """Part of requests' interface. The body is read here, so that one that breaks is tried again by the CDK."""
        if self._form.user_agent:
            request.headers["User-Agent"] = self._form.user_agent
        if self._watcher is not None:
            self._watcher.asking(MANIFEST)
        response = self._inner.send(request, stream, self._timeout(timeout), *rest, **more)
        if self._watcher is not None:
            self._watcher.answered(MANIFEST, response)
        strip_credentials(response)
        limit = self._form.max_response_mb << 20
        try:
            body = read_body(response, limit, self._form.timeout_seconds, decode=not stream)
        except TooLarge:
            raise too_large(limit) from None
        if stream:
            response.raw = _closed(body, response)
        else:
            setattr(response, "_content", body)  # noqa: B010  # as requests itself does
            setattr(response, "_content_consumed", True)  # noqa: B010  # the stubs do not know it
        return response

    def close(self) -> None:
        """Part of requests' interface."""
        self._inner.close()

    def _timeout(self, given: Any) -> tuple[float, float]:
        """The manifest's own, where it has any; the CDK would wait for ever without."""
        connect, read = given if isinstance(given, tuple) else (given, given)
        limit = self._form.timeout_seconds
        return connect or min(CONNECT_SECONDS, limit), read or limit
