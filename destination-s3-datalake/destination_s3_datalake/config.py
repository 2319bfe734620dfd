"""The configuration, parsed once at the door; and the connection specification, generated from the same models.

Nothing behind this module reads a configuration by key. Rules that a JSON Schema can say are in the models, rules that
it cannot (two fields that exclude each other, a plain-http endpoint) are validators. Every refusal is a ``ConfigError``
that names the field and never its value: a value may be a secret.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from destination_s3_datalake.errors import ConfigError

DOCUMENTATION_URL = "https://docs.airbyte.com/integrations/destinations/"
MIN_SECRET_LENGTH = 6  # shorter values occur in ordinary text: masking them would only garble logs


class Form(BaseModel):
    """Base of every part of the form: unknown keys are tolerated (Airbyte adds its own), values never change."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, str_strip_whitespace=False)


def _field(order: int, title: str, description: str, **extra: Any) -> dict[str, Any]:
    return {"title": title, "description": description, "json_schema_extra": {"order": order, **extra}}


def _ask(default: Any = ..., **arguments: Any) -> Any:
    return Field(default, **arguments)


class DefaultChain(Form):
    """Credentials from the environment, a profile, a web identity, or the container's or instance's role."""

    model_config = ConfigDict(title="Default credential chain")
    auth_type: Literal["default_chain"] = _ask(**_field(0, "Type", "Use the credentials of the machine."))


class AccessKey(Form):
    """An IAM user's access key, optionally with the token of a temporary session."""

    model_config = ConfigDict(title="Access key")
    auth_type: Literal["access_key"] = _ask(**_field(0, "Type", "Use an access key."))
    access_key_id: str = _ask(
        min_length=1,
        examples=["AKIAIOSFODNN7EXAMPLE"],
        **_field(1, "Access key ID", "Access key ID of the IAM user.", airbyte_secret=True),
    )
    secret_access_key: str = _ask(
        min_length=1,
        **_field(2, "Secret access key", "Secret access key that belongs to the access key ID.", airbyte_secret=True),
    )
    session_token: str | None = _ask(
        None,
        **_field(3, "Session token", "Only for temporary credentials; they expire.", airbyte_secret=True),
    )


class AssumeRole(Form):
    """A role to assume, with the machine's own credentials or with an access key."""

    model_config = ConfigDict(title="Assume role")
    auth_type: Literal["assume_role"] = _ask(**_field(0, "Type", "Assume an IAM role."))
    role_arn: str = _ask(
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$",
        examples=["arn:aws:iam::123456789012:role/airbyte"],
        **_field(1, "Role ARN", "ARN of the role that may write the bucket and the Glue database."),
    )
    external_id: str | None = _ask(
        None, min_length=2, **_field(2, "External ID", "The external ID that the role's trust policy asks for.")
    )
    access_key_id: str | None = _ask(
        None, **_field(3, "Access key ID", "Key to assume the role with; empty: the machine's.", airbyte_secret=True)
    )
    secret_access_key: str | None = _ask(
        None, **_field(4, "Secret access key", "Belongs to the access key ID.", airbyte_secret=True)
    )

    @model_validator(mode="after")
    def _a_key_is_whole(self) -> AssumeRole:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both access_key_id and secret_access_key, or neither")
        return self


Credentials = Annotated[DefaultChain | AccessKey | AssumeRole, Field(discriminator="auth_type")]


class ParquetFormat(Form):
    """Parquet files."""

    model_config = ConfigDict(title="Parquet")
    format_type: Literal["parquet"] = _ask("parquet", **_field(0, "Type", "Columnar files that every reader knows."))
    compression: Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"] = _ask(
        "zstd", **_field(1, "Compression", "zstd is smaller than gzip and many times faster. brotli is very slow.")
    )
    row_group_mb: int = _ask(
        128,
        ge=1,
        le=1024,
        **_field(2, "Row group size (MB)", "Uncompressed; at most an eighth of memory_limit_mb is used."),
    )
    page_kb: int = _ask(
        1024, ge=8, le=102_400, **_field(3, "Page size (KB)", "Uncompressed size at which a data page ends.")
    )
    dictionary: bool = _ask(True, **_field(4, "Dictionary", "Dictionary encoding for columns with repeated values."))
    bloom_filters: bool = _ask(
        True, **_field(5, "Bloom filters", "For columns with a dictionary; readers skip row groups by them.")
    )


class JsonlFormat(Form):
    """One JSON object per line, with the column names as keys. Append and overwrite only."""

    model_config = ConfigDict(title="JSON Lines")
    format_type: Literal["jsonl"] = _ask(**_field(0, "Type", "A JSON object per row. Append and overwrite only."))
    compression: Literal["none", "gzip", "zstd"] = _ask("none", **_field(1, "Compression", "Of the whole file."))


class CsvFormat(Form):
    """Text with commas and backslashes as Hive writes it. Append and overwrite only."""

    model_config = ConfigDict(title="CSV")
    format_type: Literal["csv"] = _ask(
        **_field(0, "Type", "Commas, backslash escapes, \\N for NULL, no header. Append and overwrite only.")
    )
    compression: Literal["none", "gzip", "zstd"] = _ask("none", **_field(1, "Compression", "Of the whole file."))


FormatType = Literal["parquet", "jsonl", "csv"]
Format = Annotated[ParquetFormat | JsonlFormat | CsvFormat, Field(discriminator="format_type")]


class Partition(Form):
    """A partition key of one stream's table."""

    model_config = ConfigDict(title="Partition key")
    stream: str = _ask(
        min_length=1, examples=["orders"], **_field(0, "Stream", "Name of the stream, or namespace.name of it.")
    )
    field: str = _ask(
        min_length=1, examples=["created_at"], **_field(1, "Field", "Top-level field that the key comes from.")
    )
    transform: str = _ask(
        pattern=r"^(identity|year|month|day|hour|truncate\[[1-9][0-9]{0,8}\]|bucket\[[1-9][0-9]{0,8}\])$",
        examples=["identity", "day", "truncate[10]", "bucket[16]"],
        **_field(
            2,
            "Transform",
            "identity; year, month, day, hour (UTC) of a date or time; truncate[n]: the first n characters, or the "
            "multiple of n below; bucket[n]: one of n buckets.",
        ),
    )
    name: str = _ask(
        pattern=r"^[a-z][a-z0-9_]{0,99}$",
        examples=["created_on"],
        **_field(3, "Name", "Name of the key, a column of its own: lower case, not that of a field."),
    )


class TypeOptions(Form):
    """Which column types values get. On a table that exists nothing is narrowed."""

    model_config = ConfigDict(title="Types")
    number: Literal["double", "decimal"] = _ask(
        "double", **_field(0, "Numbers", "double: 64-bit float. decimal: decimal(38,9), exact to 9 places.")
    )
    integer_overflow: Literal["null", "decimal", "string"] = _ask(
        "null",
        **_field(
            1,
            "Integers beyond 64 bits",
            "null: columns are bigint; a larger integer is NULL there and kept in _airbyte_extra. decimal: integer "
            "columns are decimal(38,0). string: integer columns are text.",
        ),
    )
    nested: Literal["struct", "json"] = _ask(
        "struct", **_field(2, "Objects and arrays", "struct: typed where the schema declares them. json: JSON text.")
    )
    timestamp_unit: Literal["us", "ms"] = _ask(
        "us",
        **_field(
            3,
            "Timestamps",
            "us: microseconds. ms: milliseconds, for readers that know no others; UTC without a zone in the file.",
        ),
    )


class BucketDefault(Form):
    """Whatever the bucket says."""

    model_config = ConfigDict(title="Bucket default")
    encryption_type: Literal["bucket_default"] = _ask(**_field(0, "Type", "The bucket's own default encryption."))


class SseS3(Form):
    """Keys held by S3."""

    model_config = ConfigDict(title="SSE-S3")
    encryption_type: Literal["sse_s3"] = _ask(**_field(0, "Type", "Keys that S3 manages (AES256)."))


class SseKms(Form):
    """A key in KMS."""

    model_config = ConfigDict(title="SSE-KMS")
    encryption_type: Literal["sse_kms"] = _ask(**_field(0, "Type", "A key in AWS KMS."))
    kms_key_arn: str | None = _ask(
        None,
        pattern=r"^arn:aws[a-z-]*:kms:.+$",
        **_field(1, "KMS key ARN", "Empty: the account's aws/s3 key.", airbyte_secret=False),
    )
    bucket_key: bool = _ask(True, **_field(2, "Bucket key", "Fewer KMS requests.", airbyte_secret=False))


class DsseKms(Form):
    """Two layers with a key in KMS."""

    model_config = ConfigDict(title="DSSE-KMS")
    encryption_type: Literal["dsse_kms"] = _ask(**_field(0, "Type", "Two layers of encryption, a key in AWS KMS."))
    kms_key_arn: str | None = _ask(
        None,
        pattern=r"^arn:aws[a-z-]*:kms:.+$",
        **_field(1, "KMS key ARN", "Empty: the account's aws/s3 key.", airbyte_secret=False),
    )


Encryption = Annotated[BucketDefault | SseS3 | SseKms | DsseKms, Field(discriminator="encryption_type")]


class Config(Form):
    """The whole form. ``Config.parse`` is the only way in."""

    model_config = ConfigDict(title="S3 Data Lake (Glue tables)")

    s3_bucket_name: str = _ask(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        examples=["my-lake"],
        **_field(0, "S3 bucket", "Name of the bucket that holds the lake."),
    )
    s3_bucket_path: str = _ask(
        "lake",
        pattern=r"^[^/_.][^/]*(/[^/_.][^/]*)*$",
        examples=["lake"],
        **_field(1, "Path in the bucket", "Everything is written below it. No part may begin with '_' or '.'."),
    )
    s3_bucket_region: str = _ask(
        min_length=1,
        examples=["eu-central-1"],
        **_field(2, "Region", "AWS region of the bucket and of the Glue catalog."),
    )
    glue_database: str = _ask(
        min_length=1,
        max_length=255,
        examples=["analytics"],
        **_field(3, "Glue database", "Database for streams without a namespace."),
    )
    credentials: Credentials = _ask(**_field(4, "Credentials", "How to sign in to AWS.", type="object"))
    create_databases: bool = _ask(
        True, **_field(5, "Create databases", "Create Glue databases that do not exist yet.", group="advanced")
    )
    namespace_handling: Literal["database", "table_prefix"] = _ask(
        "database",
        **_field(
            6,
            "Namespaces",
            "database: one Glue database per namespace. table_prefix: <namespace>__<stream> in the one database.",
        ),
    )
    glue_catalog_id: str | None = _ask(
        None,
        pattern=r"^[0-9]{12}$",
        **_field(7, "Glue catalog ID", "Account that owns the catalog, if it is another one."),
    )
    format: Format = _ask(
        ParquetFormat(format_type="parquet"), **_field(8, "Format", "Format of the data files.", type="object")
    )
    partitioning: tuple[Partition, ...] = _ask(
        (),
        **_field(
            32,
            "Partitioning",
            "Partition keys of tables, in their order. The keys of a table that exists cannot be changed.",
        ),
    )
    encryption: Encryption = _ask(
        BucketDefault(encryption_type="bucket_default"),
        **_field(9, "Encryption", "Encryption at rest.", type="object"),
    )
    undeclared_fields: Literal["keep", "drop", "fail"] = _ask(
        "keep",
        **_field(
            10,
            "Undeclared fields",
            "Fields that the schema does not declare. keep: in _airbyte_extra as JSON. fail: end the sync.",
        ),
    )
    existing_table: Literal["refuse", "adopt"] = _ask(
        "refuse",
        **_field(
            11,
            "Existing table",
            "A Parquet table of that name which something else made. adopt: go on in it; its files stay in place.",
        ),
    )
    publish_without_completion: Literal["if_final_state", "never", "always"] = _ask(
        "if_final_state",
        **_field(
            12,
            "Publish without completion",
            "When a full refresh counts as complete although the platform did not say so (custom connectors).",
        ),
    )
    memory_limit_mb: int = _ask(
        512, ge=128, le=1_048_576, **_field(13, "Memory limit (MB)", "Budget for buffers and conversion.")
    )
    spool_directory: str | None = _ask(
        None, **_field(14, "Spool directory", "A folder on a disk, not in memory. Empty: the temporary directory.")
    )
    spool_limit_mb: int = _ask(
        4096, ge=64, le=1_048_576, **_field(15, "Spool limit (MB)", "Disk space that the spool may use.")
    )
    max_record_mb: int = _ask(
        32, ge=1, le=1024, **_field(16, "Largest record (MB)", "A longer line ends the sync. Athena reads up to 32.")
    )
    target_file_mb: int = _ask(256, ge=1, le=4096, **_field(17, "Target file size (MB)", "Size of a full data file."))
    max_commit_interval_s: int = _ask(
        900, ge=1, le=86_400, **_field(18, "Commit interval (s)", "The longest time that rows wait for their commit.")
    )
    replay_window_mb: int = _ask(
        64, ge=0, le=1024, **_field(19, "Replay window (MB)", "Row hashes kept against duplicates, 8 bytes a row.")
    )
    cdc_deletes: Literal["hard", "soft"] = _ask(
        "hard",
        **_field(
            20,
            "CDC deletes",
            "append_dedup only. hard: a deleted row leaves the table. soft: it stays, with _ab_cdc_deleted_at set.",
        ),
    )
    merge_every_mb: int = _ask(
        1024,
        ge=1,
        le=102_400,
        **_field(
            21,
            "Merge every (MB)",
            "append_dedup only. Rows wait for the merge at the end, or until this many MB (Parquet) are waiting.",
        ),
    )
    merge_limit_mb: int = _ask(
        20_480,
        ge=1,
        le=1_048_576,
        **_field(
            22,
            "Merge limit (MB)",
            "A merge by key (append_dedup) and a field's new type rewrite the table: where that is needed, a larger "
            "table (MB of Parquet) ends the sync at its start.",
        ),
    )
    compact_files_over: int = _ask(
        64,
        ge=2,
        le=100_000,
        **_field(
            23,
            "Compact files over",
            "When a table has more small files than this (under a quarter of the target size), they become full ones.",
        ),
    )
    takeover_after_seconds: int = _ask(
        60, ge=0, le=3600, **_field(24, "Take over after (s)", "Silence after which another writer counts as dead.")
    )
    retain_replaced_hours: int = _ask(
        24,
        ge=0,
        le=8760,
        **_field(25, "Keep replaced data (h)", "How long queries may go on reading the data that a refresh replaced."),
    )
    retain_replaced_copies: int = _ask(
        3, ge=0, le=100, **_field(26, "Keep replaced copies", "At most this many replaced copies are kept.")
    )
    s3_endpoint: str | None = _ask(
        None, examples=["https://s3.example.com"], **_field(27, "S3 endpoint", "Only for S3-compatible stores.")
    )
    glue_endpoint: str | None = _ask(None, **_field(28, "Glue endpoint", "Only for a Glue-compatible catalog."))
    s3_addressing: Literal["auto", "path"] = _ask(
        "auto", **_field(29, "S3 addressing", "path: the bucket in the path, as many S3-compatible stores need.")
    )
    expected_bucket_owner: str | None = _ask(
        None,
        pattern=r"^[0-9]{12}$",
        **_field(30, "Expected bucket owner", "Account that must own the bucket; every request checks it."),
    )
    allow_insecure_endpoint: bool = _ask(
        False, **_field(31, "Allow insecure endpoint", "Accept plain http for endpoints beyond this machine.")
    )

    types: TypeOptions = _ask(TypeOptions(), **_field(33, "Types", "Which column types values get."))

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Config:
        """Validate a configuration.

        Raises:
            ConfigError: names each field that is wrong and why, never its value.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as cause:
            raise ConfigError(f"The configuration is not valid: {_explain(cause)}.") from None

    @field_validator("s3_endpoint", "glue_endpoint")
    @classmethod
    def _an_endpoint_is_a_url(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be a URL such as https://s3.example.com, without user, password or query")
        return value

    @model_validator(mode="after")
    def _endpoints_are_encrypted(self) -> Config:
        for name in ("s3_endpoint", "glue_endpoint"):
            url: str | None = getattr(self, name)
            if url and url.startswith("http://") and not self.allow_insecure_endpoint and not _is_loopback(url):
                raise ValueError(f"{name} is plain http; use https, or set allow_insecure_endpoint")
        return self

    @model_validator(mode="after")
    def _a_record_fits_the_budget(self) -> Config:
        if self.max_record_mb * 12 > self.memory_limit_mb:
            raise ValueError("max_record_mb may be at most memory_limit_mb / 12: raise memory_limit_mb or lower it")
        return self


def connection_specification() -> dict[str, Any]:
    """The form as JSON Schema in the dialect of the Airbyte UI: no ``$ref``, oneOf branches told apart by a const.

    Rules: https://docs.airbyte.com/platform/connector-development/connector-specification-reference
    """
    schema = Config.model_json_schema()
    definitions = schema.pop("$defs", {})
    form: dict[str, Any] = _plain(schema, definitions)
    form["$schema"] = "http://json-schema.org/draft-07/schema#"
    return form


def secrets_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Every value of ``raw`` that the form calls a secret, longest first; read before validation, so nothing leaks."""
    found = {value for value in _values_under(raw, _secret_fields()) if len(value) >= MIN_SECRET_LENGTH}
    return tuple(sorted(found, key=len, reverse=True))


@cache
def _secret_fields() -> frozenset[str]:
    return frozenset(_secret_names(connection_specification()))


def _explain(error: ValidationError) -> str:
    reasons = []
    for item in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "the form"
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_invalid":  # its text quotes the value
            reason = f"must be one of {item['ctx']['expected_tags']}"
        reasons.append(f"{place}: {reason}")
    return "; ".join(reasons)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Inline references, turn ``X | None`` into ``X``, drop what the Airbyte form does not know."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return _plain({**target, **siblings}, definitions)
    branches = node.get("anyOf")
    if branches is not None:
        present = [branch for branch in branches if branch != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _plain({**rest, **present[0]}, definitions)
    out = {key: _plain(value, definitions) for key, value in node.items() if key not in ("discriminator", "$schema")}
    if out.get("type") == "object":
        out["additionalProperties"] = True
    return out


def _secret_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            if child.get("airbyte_secret"):
                yield name
            yield from _secret_names(child)
        for branch in node.get("oneOf", ()):
            yield from _secret_names(branch)


def _values_under(node: Any, names: Collection[str]) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            if name in names and isinstance(child, str):
                yield child
            yield from _values_under(child, names)
    elif isinstance(node, list):
        for child in node:
            yield from _values_under(child, names)
