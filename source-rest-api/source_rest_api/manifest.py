"""A Connector Builder manifest from text to a checked document. Pure; needs the CDK, and no network.

Refused with the place and what to change: what is no YAML or JSON, references that lead nowhere, components that do not
fit the CDK's own schema, a newer version than this connector runs, custom code, and file transfer. Values of the
configuration are in no message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import yaml
from airbyte_cdk.sources.declarative.concurrent_declarative_source import get_declarative_component_schema
from airbyte_cdk.sources.declarative.parsers.custom_exceptions import (
    CircularReferenceException,
    UndefinedReferenceException,
)
from airbyte_cdk.sources.declarative.parsers.manifest_component_transformer import ManifestComponentTransformer
from airbyte_cdk.sources.declarative.parsers.manifest_reference_resolver import ManifestReferenceResolver
from airbyte_cdk.utils.yaml_loader import safe_load_yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import SchemaError, ValidationError
from packaging.version import InvalidVersion, Version

from source_rest_api.config_file import Place, written
from source_rest_api.errors import config_error
from source_rest_api.form import Form

Document = dict[str, Any]

RESERVED = "__"  # the platform's own keys, and the CDK's way to run Python of a configuration
ROTATED = "refresh_token_updater"  # writes tokens into the configuration, below ``credentials`` unless told otherwise
_DATA = {"connection_specification", "config_overrides", "schema", "$parameters"}  # no components in there
_MAPS = {"request_parameters", "request_headers", "request_body_data", "request_body_json", "value"}  # names of an API
_NAMES = {"null": "null", "string": "a text", "integer": "an integer", "number": "a number", "boolean": "true or false",
          "array": "a list", "object": "an object"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was found good.

    Attributes:
        text: as it was pasted.
        document: as it was parsed.
        resolved: with references, types and parameters filled in, as the CDK runs it.
    """

    text: str
    document: Document
    resolved: Document

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Raises a config_error that names the place."""
        document = _mapping(text, "manifest")
        resolved = resolve(document)
        check_version(document)
        check_components(resolved)
        check_shape(resolved, get_declarative_component_schema())
        return cls(text, document, resolved)

    @property
    def specification(self) -> Document | None:
        """The JSON Schema of its configuration; None if it has none."""
        found = (self.resolved.get("spec") or {}).get("connection_specification")
        return found if isinstance(found, dict) else None

    @property
    def streams(self) -> list[str]:
        """The names of its streams, but for those that are known at run time only."""
        return [str(stream.get("name", "")) for stream in _static_streams(self.resolved.get("streams") or ())]

    @property
    def dynamic_streams(self) -> list[str]:
        """The names of the entries that become streams at run time."""
        entries = self.resolved.get("dynamic_streams") or ()
        return [str(entry.get("name", f"dynamic_stream_{number}")) for number, entry in enumerate(entries)]

    def config(self, text: str) -> Document:
        """The configuration that is pasted beside it, checked by the manifest's own spec. Raises a config_error."""
        config = _mapping(text, "manifest_config") if text.strip() else {}
        for name in config:
            if not isinstance(name, str) or name.startswith(RESERVED):
                raise config_error("manifest_config: names are texts that do not begin with two underscores.")
        schema = self.specification
        if schema is None:
            return config
        try:
            Draft7Validator.check_schema(schema)
        except SchemaError as problem:
            where = place(("spec", "connection_specification", *problem.absolute_path))
            raise config_error(f"manifest: {where} is no JSON Schema.") from None
        found = next(Draft7Validator(schema).iter_errors(config), None)
        if found is not None:
            raise config_error(f"manifest_config: {_worded(found)}, says the manifest's spec.")
        for name in sorted(config.keys() - _declared(schema)):
            if name not in self.text and not (name == "credentials" and ROTATED in self.text):
                raise config_error(
                    f"manifest_config: {name!r} is no field of the manifest's spec, and nothing in the manifest reads "
                    f"it. Fields: {', '.join(sorted(_declared(schema)))}."
                )
        return config

    def secrets(self, config: Mapping[str, Any]) -> list[str]:
        """What must not be logged: what the spec marks, or every text where there is no spec."""
        schema = self.specification
        found = texts_in(config) if schema is None else _marked(schema, config)
        return [text for text in found if text]


@dataclass(frozen=True, slots=True)
class Description:
    """What ``validate`` shows of a manifest.

    Attributes:
        streams: the names of its streams.
        dynamic_streams: the names of entries that become streams at run time.
        connection_specification: the JSON Schema of ``manifest_config``, or None.
        documentation_url: of its spec, or empty.
        version: of the CDK that it was made for.
    """

    streams: Sequence[str]
    dynamic_streams: Sequence[str]
    connection_specification: Mapping[str, Any] | None
    documentation_url: str
    version: str


def describe(config: Mapping[str, Any]) -> Description:
    """The manifest of a whole configuration, without asking any API.

    Raises:
        AirbyteTracedException: a config_error: the form, the manifest or its configuration is wrong.
    """
    form = Form.parse(config)
    if not form.manifest:
        raise config_error("This configuration has no manifest.")
    manifest = Manifest.parse(form.manifest)
    check_limits(manifest, form)
    manifest.config(form.manifest_config)
    spec = manifest.resolved.get("spec") or {}
    return Description(
        manifest.streams,
        manifest.dynamic_streams,
        manifest.specification,
        str(spec.get("documentation_url") or ""),
        str(manifest.document.get("version", "")),
    )


def resolve(document: Document) -> Document:
    """With references, types and parameters filled in, as the CDK does it. Raises a config_error."""
    try:
        filled = ManifestReferenceResolver().preprocess_manifest({"type": "DeclarativeSource", **document})
    except CircularReferenceException as problem:
        raise config_error(f"manifest: {problem}. Break the circle.") from None
    except UndefinedReferenceException as problem:
        raise config_error(f"manifest: {problem}. Write a place that exists, such as #/definitions/name.") from None
    except ValueError as problem:
        raise config_error(f"manifest: {problem}. References look like #/definitions/name.") from None
    except RecursionError:
        raise config_error("manifest: its references, or its lists and objects, are nested too deeply.") from None
    return ManifestComponentTransformer().propagate_types_and_parameters("", filled, {})


def check_version(document: Mapping[str, Any]) -> None:
    """Raise a config_error for a manifest of a later CDK: it may say what this one ignores."""
    own = version("airbyte-cdk")
    try:
        given = Version(str(document.get("version", "0")))
    except InvalidVersion:
        raise config_error(f"manifest: version is none. Write the version of the CDK, such as {own}.") from None
    if given.release[:2] > Version(own).release[:2]:
        raise config_error(
            f"manifest: it is made for version {given} of Airbyte's CDK, and this connector runs {own}. Update the "
            "connector, or lower the manifest's version if it needs nothing of the later one."
        )


def check_components(document: Mapping[str, Any], above: Place = ()) -> None:
    """Raise a config_error for custom code and for file transfer, at any depth."""
    for where, component in _components(document, above):
        kind = component.get("type")
        has_class = isinstance(component.get("class_name"), str) and not (where and where[-1] in _MAPS)
        if has_class or (isinstance(kind, str) and kind.startswith("Custom")):
            raise config_error(
                f"manifest: {place(where)} is a custom component (class_name), which runs Python code of its own. This "
                "connector does not run it: use the CDK's own components."
            )
        if component.get("file_uploader") is not None:
            raise config_error(f"manifest: {place((*where, 'file_uploader'))}: files are not transferred. Remove it.")
        if kind == "JsonFileSchemaLoader":
            raise config_error(
                f"manifest: {place(where)} reads a file, and a pasted manifest has none. Take an InlineSchemaLoader, "
                "or none: the schema is then that of a sample."
            )


def check_limits(manifest: Manifest, form: Form) -> None:
    """Raise a config_error where a limit stands in the form and in the manifest: only one of them could be kept."""
    for setting, is_given, name in (
        ("num_workers", form.num_workers != Form().num_workers, "concurrency_level"),
        ("rate_limit", form.rate_limit != Form().rate_limit, "api_budget"),
    ):
        if is_given and name in manifest.document:
            raise config_error(f"{setting} is given, and the manifest has {name}. Remove one of the two.")


def check_shape(document: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raise a config_error if a resolved manifest does not fit the CDK's schema."""
    found = next(Draft7Validator(schema).iter_errors(document), None)
    if found is not None:
        raise config_error(f"manifest: {_worded(_innermost(found), document)}.")


def place(where: Iterable[str | int]) -> str:
    """A place in a document, as one would write it."""
    return written(where) or "the top"


def _mapping(text: str, field: str) -> Document:
    """The object that a YAML or JSON text holds. Raises a config_error with the line, and no text of it."""
    try:
        found = msgspec.json.decode(text) if text.lstrip().startswith("{") else None
    except msgspec.DecodeError:
        found = None  # YAML's flow style looks like JSON and is more
    if found is None:
        try:
            found = safe_load_yaml(text)
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
            raise config_error(f"{field}: {where}this is neither YAML nor JSON ({problem.problem}).") from None
        except (yaml.YAMLError, ValueError, RecursionError):
            raise config_error(f"{field} is neither YAML nor JSON.") from None
    if not isinstance(found, dict):
        raise config_error(f"{field} is no object: write `name: value` lines, or JSON in braces.")
    return found


def _components(node: Any, where: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """All objects that may be components, with their places. Definitions count where they are used."""
    if isinstance(node, Mapping):
        yield where, node
        for name, inner in node.items():
            if name not in _DATA and not (not where and name == "definitions"):
                yield from _components(inner, (*where, str(name)))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _components(inner, (*where, number))


def _static_streams(entries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        if entry.get("type") == "ConditionalStreams":
            yield from _static_streams(entry.get("streams") or ())
        else:
            yield entry


def _innermost(error: ValidationError) -> ValidationError:
    """The error in the branch that was meant: the one whose ``type`` is the component's."""
    while error.context:
        branches: dict[Any, list[ValidationError]] = {}
        for inner in error.context:
            branches.setdefault(inner.relative_schema_path[0], []).append(inner)
        meant = [found for found in branches.values() if not any(map(_is_of_another_type, found))]
        if len(meant) != 1:
            return error
        error = meant[0][0]
    return error


def _is_of_another_type(error: ValidationError) -> bool:
    if error.validator == "enum" and list(error.relative_path)[-1:] == ["type"]:
        return len(error.relative_path) == 1
    return error.validator == "type" and not error.relative_path


def _worded(error: ValidationError, document: Any = None) -> str:
    """An error of jsonschema by place and rule; the value is not quoted."""
    where = place(error.absolute_path) + _named(error.absolute_path, document)
    rule: Any = error.validator_value
    given: Any = error.instance
    match error.validator:
        case "required":
            missing = [name for name in rule if name not in given]
            return f"{where} needs {', '.join(map(repr, missing))}"
        case "additionalProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
            unknown = sorted(map(str, given.keys() - known.keys()))
            return f"{where} knows no {', '.join(map(repr, unknown))}"
        case "type":
            kinds = [rule] if isinstance(rule, str) else rule
            return f"{where} must be {' or '.join(_NAMES.get(kind, str(kind)) for kind in kinds)}"
        case "enum" | "const":
            values = rule if isinstance(rule, list) else [rule]
            return f"{where} must be {' or '.join(map(repr, values))}"
        case "anyOf" | "oneOf":
            return f"{where} fits none of the forms that are allowed there (check its type and its fields)"
        case other:
            return f"{where} breaks the rule {other!r}" + (f" ({rule!r})" if isinstance(rule, str | int) else "")


def _named(where: Iterable[str | int], document: Any) -> str:
    """The name of the stream that a place is in."""
    node, found = document, ""
    for step in where:
        try:
            node = node[step]
        except (LookupError, TypeError):
            break
        if isinstance(node, Mapping) and node.get("type") in ("DeclarativeStream", "StateDelegatingStream"):
            found = str(node.get("name") or "")
    return f" (stream {found!r})" if found else ""


def _declared(schema: Any) -> set[str]:
    """The names that a schema of an object knows, in all of its branches."""
    if not isinstance(schema, Mapping):
        return set()
    found = set(schema.get("properties") or {})
    for keyword in ("oneOf", "anyOf", "allOf"):
        for branch in schema.get(keyword) or ():
            found |= _declared(branch)
    return found


def _marked(schema: Any, value: Any) -> Iterator[str]:
    """The texts that a schema marks as secret, through branches and lists."""
    if not isinstance(schema, Mapping):
        return
    if schema.get("airbyte_secret") is True:
        yield from texts_in(value)
        return
    for keyword in ("oneOf", "anyOf", "allOf"):
        for branch in schema.get(keyword) or ():
            yield from _marked(branch, value)
    if isinstance(value, Mapping):
        for name, inner in (schema.get("properties") or {}).items():
            if name in value:
                yield from _marked(inner, value[name])
    elif isinstance(value, list):
        for item in value:
            yield from _marked(schema.get("items"), item)


def texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case bool() | None:
            return
        case int() | float():
            yield str(value)
        case dict():
            for inner in value.values():
                yield from texts_in(inner)
        case list():
            for inner in value:
                yield from texts_in(inner)
