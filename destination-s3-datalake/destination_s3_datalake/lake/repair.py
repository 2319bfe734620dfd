"""Rebuilding the log of a table whose log was lost or damaged, from Glue and from what lies in the bucket.

What the log alone knew is lost: row hashes (rows may come twice once), rows that were staged and not merged, and rows
of refreshes that were not published. The new log is numbered above every number that can be seen, so that no key is
ever used twice, and has another ``log_id``, so that an older writer or log is not taken for it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from destination_s3_datalake.errors import ConfigError, TransientError
from destination_s3_datalake.lake import glue
from destination_s3_datalake.lake.glue import GlueTable
from destination_s3_datalake.lake.layout import Layout
from destination_s3_datalake.lake.log import StoredFile, Swap, TableState, checkpoint_json
from destination_s3_datalake.lake.opening import Lake, reaches
from destination_s3_datalake.lake.s3 import ListedObject
from destination_s3_datalake.lake.table import TableName, ours_in, partitioning_of, stream_parameter
from destination_s3_datalake.lake.table_log import CHECKPOINT, TableLog
from destination_s3_datalake.records.partitions import values_of
from destination_s3_datalake.records.schema import EXTRA, META

NUMBERS = re.compile(r"\d{10,20}")
ALIVE_SECONDS = 60.0


def repair_table(lake: Lake, *, stream: tuple[str | None, str], layout: Layout, name: TableName) -> list[str] | None:
    """Write a new log for the table if it has none that is whole, and say so; None if the stream has no such table.

    Raises:
        ConfigError: the table's Location is not below the configured path.
        TransientError: a sync is running.
    """
    table = lake.catalog.table(name.database, name.table)
    if table is None or table.parameters.get(glue.STREAM) != stream_parameter(stream):
        return None
    if _is_whole(lake, layout, name, table):
        return [f"{name}: the log is whole; nothing was changed."]
    _require_quiet(lake)
    folder = table.location.removeprefix(f"s3://{lake.bucket.name}/").rstrip("/")
    if not folder or folder.startswith("s3://"):
        raise ConfigError(
            f"The Location of {name} is not in the bucket {lake.bucket.name}: correct s3_bucket_name.", table=str(name)
        )
    live = list(lake.bucket.objects(f"{folder}/"))
    private = list(lake.bucket.keys(layout.private))
    numbers = _numbers([*private, *lake.bucket.folders(layout.data), *(found.key for found in live)])
    seq = max([table.seq, *numbers]) + 1
    state = _state_of(table, seq=seq, folder=folder, stream=stream, live=live, tombstones=_last_tombstones(private))
    lake.bucket.put(f"{layout.log}/{CHECKPOINT}{seq:020d}.json", checkpoint_json(state))
    _claim(lake, name, table, state)
    hashes = [key for key in private if "/replay/" in key]
    lake.bucket.delete_many(hashes)
    says = [f"{name}: a new log begins at entry {seq}; {len(live)} data files are in the table."]
    if any("/stage/" in key for key in private) or len(lake.bucket.folders(layout.data)) > 1:
        says.append(
            f"{name}: there are staged rows, or folders that are not the table. Rows of an unfinished merge or refresh "
            "may be among them and are not in the table: refresh the stream."
        )
    return says


def _is_whole(lake: Lake, layout: Layout, name: TableName, table: GlueTable) -> bool:
    try:
        state = TableLog(lake.bucket, layout.log, str(name)).read()
    except ConfigError:
        return False
    return state is not None and reaches(state, table)


def _require_quiet(lake: Lake) -> None:
    for key in lake.bucket.keys(f"{lake.prefix}/_airbyte/writers/"):
        writer = key.rpartition("/")[2]
        age = None if writer == lake.heartbeat.writer else lake.heartbeat.age_of(writer)
        if age is not None and age < ALIVE_SECONDS:
            raise TransientError("A sync is running on this lake: repair it when none is.")


def _numbers(keys: Iterable[str]) -> list[int]:
    """Every number of our names: of entries, checkpoints, folders and files."""
    return [int(text) for key in keys for part in key.split("/") for text in NUMBERS.findall(part)]


def _last_tombstones(private: Iterable[str]) -> str | None:
    return max((key for key in private if "/tombstones/" in key), default=None)


def _state_of(
    table: GlueTable,
    *,
    seq: int,
    folder: str,
    stream: tuple[str | None, str],
    live: list[ListedObject],
    tombstones: str | None,
) -> TableState:
    log_id = uuid.uuid4().hex
    names = json.loads(table.parameters.get(glue.COLUMNS, "{}"))
    mine = {*ours_in(table), *(column.Name for column in META), EXTRA.Name}
    columns = tuple(column for column in table.columns if column.Name in mine)
    generation = table.parameters.get(glue.GENERATION)
    file_format = glue.format_of(table) or "parquet"
    files = tuple(StoredFile(key=found.key, bytes=found.size) for found in live)
    swap = Swap(
        seq=seq, epoch=seq, uid=uuid.uuid4().hex, log_id=log_id, time=datetime.now(UTC).isoformat(), folder=folder,
        columns=columns, names=names, file_format=file_format, generation=None, upto=seq, replaces=False, files=files,
        tombstones=tombstones,
    )  # fmt: skip
    keys = partitioning_of(table)
    places = {tuple(found.key.split("/")[-1 - len(keys) : -1]) for found in live} if keys else set()
    swap = swap.model_copy(
        update={"partitioning": keys, "partitions": tuple(sorted(values_of("/".join(place)) for place in places))}
    )
    return TableState(
        log_id=log_id,
        stream=stream,
        next_seq=seq + 1,
        columns=columns,
        names=names,
        applied_upto=seq,
        swap=swap,
        partitions=swap.partitions,
        published_generation=int(generation) if generation is not None else None,
        rows=None,
        files=len(files),
        bytes=sum(file.bytes for file in files),
        has_litter=True,
    )


def _claim(lake: Lake, name: TableName, table: GlueTable, state: TableState) -> None:
    """Let Glue name the new log, on top of whatever stands there now."""
    parameters = {glue.LOG_ID: state.log_id, glue.SEQ: str(state.next_seq - 1)}
    file_format = state.file_format or "parquet"
    definition = glue.with_columns(table.definition, state.columns, parameters, file_format)
    try:
        lake.catalog.update_table(name.database, definition, version=table.version)
    except glue.TableMovedError:
        raise TransientError(f"The table {name} changed in Glue while it was repaired: run repair again.") from None
