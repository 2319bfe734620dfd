"""Partitions in Glue: each with a storage descriptor of its own, in batches of 100.

Glue moves no two partitions at once, so a reader may see some of a publication before the rest; before each batch the
caller's fence is checked. Partitions that lie outside the table's own folders are others', and stay, as do parameters
that others set. Existing partitions are read page by page: memory holds one page, and the values of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.lake.glue import BY_PLACE, STORAGE, Catalog, GluePartition, GlueTable
from destination_s3_datalake.records.partitions import Values
from destination_s3_datalake.records.schema import GlueColumn

BATCH = 100  # Glue's limit for create and update
DELETE_BATCH = 25


@dataclass(frozen=True, slots=True)
class Place:
    """A table's partitions: where they are, and what each must say of its files."""

    database: str
    table: GlueTable
    columns: tuple[GlueColumn, ...]
    """Ours, which each partition must show."""
    file_format: FormatType
    root: str
    """Location of all folders of the table; a partition elsewhere is somebody else's."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many partitions were created, set right and dropped."""

    created: int
    changed: int
    dropped: int

    @property
    def total(self) -> int:
        return self.created + self.changed + self.dropped


def synchronise(
    catalog: Catalog, place: Place, locations: Mapping[Values, str], check_fence: Callable[[], None]
) -> Repaired:
    """Let Glue show exactly these partitions of ours, beside those of others.

    Raises:
        FencedError: a newer writer has opened the table.
    """
    missing = dict(locations)
    changed = dropped = 0
    for page in catalog.partitions(place.database, place.table.name):
        wrong, stale = [], []
        for found in page:
            location = missing.pop(found.values, None)
            if location is not None and not _is_right(found, location, place):
                wrong.append(_set_right(found, location, place))
            elif location is None and found.values not in locations and found.location.startswith(place.root):
                stale.append(found.values)
        for batch in _batches(wrong, BATCH):
            check_fence()
            catalog.update_partitions(place.database, place.table.name, batch)
        for doomed in _batches(stale, DELETE_BATCH):
            check_fence()
            catalog.drop_partitions(place.database, place.table.name, doomed)
        changed, dropped = changed + len(wrong), dropped + len(stale)
    register(catalog, place, missing, check_fence)
    return Repaired(len(missing), changed, dropped)


def register(catalog: Catalog, place: Place, locations: Mapping[Values, str], check_fence: Callable[[], None]) -> None:
    """Create partitions; those that somebody has created already get our location.

    Raises:
        FencedError: a newer writer has opened the table.
    """
    for batch in _batches(locations.items(), BATCH):
        check_fence()
        new = [_new(values, location, place) for values, location in batch]
        taken = catalog.create_partitions(place.database, place.table.name, new)
        if taken:
            present = catalog.partitions_of(place.database, place.table.name, taken)
            right = [_set_right(found, locations[found.values], place) for found in present]
            catalog.update_partitions(place.database, place.table.name, right)


def _new(values: Values, location: str, place: Place) -> GluePartition:
    descriptor = {**place.table.definition["StorageDescriptor"], "Location": location}
    return GluePartition(values, {"Values": list(values), "StorageDescriptor": descriptor, "Parameters": {}})


def _set_right(found: GluePartition, location: str, place: Place) -> GluePartition:
    wanted = place.table.definition["StorageDescriptor"]
    ours = {key: wanted[key] for key in ("Columns", "InputFormat", "OutputFormat", "SerdeInfo")}
    descriptor = {**(found.definition.get("StorageDescriptor") or {}), **ours, "Location": location}
    return GluePartition(found.values, {**found.definition, "StorageDescriptor": descriptor})


def _is_right(found: GluePartition, location: str, place: Place) -> bool:
    descriptor = found.definition.get("StorageDescriptor") or {}
    serde = (descriptor.get("SerdeInfo") or {}).get("SerializationLibrary")
    return (
        found.location.rstrip("/") == location.rstrip("/")
        and serde == STORAGE[place.file_format].serde
        and shows(descriptor.get("Columns", ()), place.columns, place.file_format)
    )


def shows(present: Iterable[Mapping[str, Any]], ours: Sequence[GlueColumn], file_format: FormatType) -> bool:
    """Whether columns in Glue include ours with their types, and in their order where that matters."""
    types = {column["Name"]: column.get("Type", "") for column in present}
    if any(types.get(column.Name) != column.Type for column in ours):
        return False
    mine = {column.Name for column in ours}
    in_order = [name for name in types if name in mine]
    return file_format not in BY_PLACE or in_order == [column.Name for column in ours]


def _batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
