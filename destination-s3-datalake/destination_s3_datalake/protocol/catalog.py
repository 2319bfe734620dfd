"""The configured catalog, parsed once: one frozen ``StreamPlan`` per stream, and what a run means for each. Pure.

``intent_of`` is the table "What a run means" of the design as a function of catalog, generations and log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

from destination_s3_datalake.errors import ConfigError

SUPPORTED_MODES = ("append", "overwrite", "append_dedup")


class StreamId(NamedTuple):
    """An Airbyte stream: its namespace (None for the default one) and its name."""

    namespace: str | None
    name: str

    def __str__(self) -> str:
        return self.name if self.namespace is None else f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What the catalog says of one stream.

    ``generation``, ``minimum`` and ``sync_id`` are None where the platform did not send them, and where it sent the
    1/1/1 that PyAirbyte sends for every run and mode, which means nothing.
    """

    id: StreamId
    json_schema: Mapping[str, Any]
    sync_mode: Literal["full_refresh", "incremental"]
    destination_sync_mode: Literal["append", "overwrite", "append_dedup"]
    generation: int | None
    minimum: int | None
    sync_id: int | None
    primary_key: tuple[tuple[str, ...], ...] = ()
    cursor: tuple[str, ...] | None = None


class Intent(Enum):
    """What this run does to the table of a stream."""

    APPEND = "append"
    """Commit along the way, STATE by STATE, into the table."""
    APPEND_AT_END = "append_at_end"
    """One commit, made only when the end is the end; only the last STATE leaves."""
    UPSERT = "upsert"
    """Commit along the way into the stage, merge by key at the end and whenever much is staged."""
    REPLACE = "replace"
    """Build aside, publish when the end is the end; only the last STATE leaves. A retry starts anew."""
    REFRESH = "refresh"
    """Commit along the way into a folder that is published when the end is the end. A retry goes on there."""
    REFRESH_UPSERT = "refresh_upsert"
    """The same into the stage; published by one merge at the end, of the refresh's rows alone."""

    @property
    def holds_states(self) -> bool:
        """Whether STATEs wait until everything is published."""
        return self in (Intent.APPEND_AT_END, Intent.REPLACE)

    @property
    def is_staged(self) -> bool:
        """Whether rows are merged by key."""
        return self in (Intent.UPSERT, Intent.REFRESH_UPSERT)

    @property
    def replaces(self) -> bool:
        """Whether the table's rows go when this run is published."""
        return self in (Intent.REPLACE, Intent.REFRESH, Intent.REFRESH_UPSERT)


@dataclass(frozen=True, slots=True)
class Decision:
    """An intent, and what the user should know of it."""

    intent: Intent
    warning: str | None = None


def intent_of(plan: StreamPlan, *, published_generation: int | None, continues: bool) -> Decision:
    """What a run means for one stream: the first row of the design's table that fits.

    Args:
        plan: the stream of the catalog.
        published_generation: generation of the table's last replace, None if there was none or it had no number.
        continues: the stream's first message is a STATE that left with or after the last replace: this run is the
            retry of one that was published.

    Raises:
        ConfigError: the generations contradict each other.
    """
    is_dedup = plan.destination_sync_mode == "append_dedup"
    goes_on = Intent.UPSERT if is_dedup else Intent.APPEND
    if plan.generation is None or plan.minimum is None:
        if is_dedup:
            return Decision(Intent.UPSERT)
        if plan.destination_sync_mode == "overwrite":
            return Decision(Intent.APPEND if continues else Intent.REPLACE)
        return Decision(Intent.APPEND_AT_END if plan.sync_mode == "full_refresh" else Intent.APPEND)
    if plan.minimum == 0:
        return Decision(goes_on)
    if plan.minimum != plan.generation:
        raise ConfigError(
            f"Stream {plan.id}: minimum_generation_id {plan.minimum} with generation_id {plan.generation} is not "
            "a refresh that exists; it must be 0 or the generation itself. Reset the connection.",
            stream=plan.id.name,
            namespace=plan.id.namespace,
        )
    if published_generation == plan.generation:
        return Decision(goes_on)  # the retry of a run that died after its swap, or whose end the platform did not see
    warning = None
    if published_generation is not None and plan.generation < published_generation:
        warning = (
            f"this refresh has generation {plan.generation} and the table has {published_generation} already: the "
            "platform counts anew (was it reinstalled?). The table is replaced."
        )
    return Decision(Intent.REFRESH_UPSERT if is_dedup else Intent.REFRESH, warning)


def parse_catalog(raw: Mapping[str, Any]) -> dict[StreamId, StreamPlan]:
    """A configured catalog as it comes from ``--catalog``, in its order.

    Raises:
        ConfigError: it is not a configured catalog, or asks for a mode that does not exist here.
    """
    streams = raw.get("streams")
    if not isinstance(streams, list) or not streams:
        raise ConfigError("The catalog has no streams: select at least one stream in the connection.")
    plans: dict[StreamId, StreamPlan] = {}
    for position, entry in enumerate(streams):
        plan = _parse_stream(entry, position)
        if plan.id in plans:
            raise ConfigError(f"The catalog names the stream {plan.id} twice.", stream=plan.id.name)
        plans[plan.id] = plan
    return plans


def _parse_stream(entry: Any, position: int) -> StreamPlan:
    stream = entry.get("stream") if isinstance(entry, Mapping) else None
    name = stream.get("name") if isinstance(stream, Mapping) else None
    if not isinstance(name, str) or not isinstance(stream, Mapping):
        raise ConfigError(f"Stream number {position + 1} of the catalog has no name: it is not a configured catalog.")
    stream_id = StreamId(stream.get("namespace") or None, name)
    mode = entry.get("destination_sync_mode")
    if mode not in SUPPORTED_MODES:
        raise ConfigError(
            f"Stream {stream_id}: destination sync mode {mode!r} is not supported; "
            f"choose one of {', '.join(SUPPORTED_MODES)}.",
            stream=name,
            namespace=stream_id.namespace,
        )
    sync_mode = entry.get("sync_mode")
    if sync_mode not in ("full_refresh", "incremental"):
        raise ConfigError(f"Stream {stream_id}: sync mode must be full_refresh or incremental.", stream=name)
    schema = stream.get("json_schema")
    if not isinstance(schema, Mapping):
        raise ConfigError(f"Stream {stream_id}: the catalog has no JSON schema; refresh the source's schema.")
    generation, minimum, sync_id = (
        _whole_number(entry, key, stream_id) for key in ("generation_id", "minimum_generation_id", "sync_id")
    )
    if generation == minimum == sync_id == 1:
        generation = minimum = sync_id = None
    return StreamPlan(
        stream_id,
        schema,
        sync_mode,
        mode,
        generation,
        minimum,
        sync_id,
        primary_key=tuple(_path(part, "primary_key", stream_id) for part in entry.get("primary_key") or ()),
        cursor=_path(entry["cursor_field"], "cursor_field", stream_id) if entry.get("cursor_field") else None,
    )


def _path(value: Any, key: str, stream_id: StreamId) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise ConfigError(
            f"Stream {stream_id}: {key} of the catalog is not a path of field names.", stream=stream_id.name
        )
    return tuple(value)


def _whole_number(entry: Mapping[str, Any], key: str, stream_id: StreamId) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"Stream {stream_id}: {key} of the catalog must be a whole number.", stream=stream_id.name)
    return value
