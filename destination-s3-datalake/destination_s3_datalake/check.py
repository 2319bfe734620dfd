"""``check``: everything that a sync will do, done once with objects and a table of its own, and undone.

Written through the production path: a multipart upload with the configured encryption, a conditional PUT, the listing,
a heartbeat's PUT and DELETE, CreateTable and UpdateTable, and the calls on partitions if there are to be any. What it
leaves behind is nothing.
"""

from __future__ import annotations

import secrets

from destination_s3_datalake.config import Config, FormatType
from destination_s3_datalake.errors import ConfigError, TransientError
from destination_s3_datalake.files.spool import choose_directory
from destination_s3_datalake.lake import partitions
from destination_s3_datalake.lake.glue import Catalog, GlueTable, new_table, with_columns
from destination_s3_datalake.lake.s3 import AlreadyThereError, Bucket
from destination_s3_datalake.lake.session import connect
from destination_s3_datalake.records import names
from destination_s3_datalake.records.partitions import Values
from destination_s3_datalake.records.schema import GlueColumn

CHECK_ATTEMPTS = 3  # somebody waits in front of a form
PARTITION = "check"
COLUMN = GlueColumn(Name="id", Type="bigint")


def check(config: Config) -> None:
    """Return if a sync can work.

    Raises:
        ConfigError, TransientError: what is wrong, and what to change.
    """
    choose_directory(config.spool_directory)
    clients = connect(config, attempts=CHECK_ATTEMPTS)
    bucket = Bucket(clients.s3, config.s3_bucket_name, config.encryption)
    catalog = Catalog(clients.glue, catalog_id=config.glue_catalog_id, create_databases=config.create_databases)
    name = f"airbyte_check_{secrets.token_hex(6)}"
    _check_bucket(bucket, f"{config.s3_bucket_path}/_airbyte/{name}")
    _check_catalog(catalog, config, name)


def _check_bucket(bucket: Bucket, folder: str) -> None:
    list(bucket.keys(f"{folder}/"))
    list(bucket.uploads(f"{folder}/"))
    uploaded, taken = f"{folder}/upload", f"{folder}/conditional"
    upload_id = bucket.start_upload(uploaded)
    try:
        etag = bucket.upload_part(uploaded, upload_id, number=1, body=b"airbyte")
        bucket.complete_upload(uploaded, upload_id, (etag,))
    except BaseException:
        bucket.abort_upload(uploaded, upload_id)
        raise
    if bucket.get(uploaded) != b"airbyte":
        raise TransientError("The object that check wrote could not be read back. Try again later.")
    bucket.abort_upload(uploaded, upload_id)
    try:
        _check_conditional_put(bucket, taken)
    finally:
        bucket.delete(uploaded)
        bucket.delete(taken)


def _check_conditional_put(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"1", overwrite=True)
    try:
        bucket.put(key, b"2", overwrite=False)
    except AlreadyThereError:
        return
    raise ConfigError(
        "This store ignores conditional writes (If-None-Match), on which the safety of every commit rests. "
        "Use AWS S3, or an S3-compatible store that supports them."
    )


def _check_catalog(catalog: Catalog, config: Config, table: str) -> None:
    database = names.database_name(config.glue_database)
    catalog.ensure_database(database)
    location = f"s3://{config.s3_bucket_name}/{config.s3_bucket_path}/{table}/"
    form = config.format.format_type
    catalog.create_table(
        database,
        new_table(
            table,
            location=location,
            columns=[COLUMN],
            parameters={},
            file_format=form,
            partition_keys=[key.name for key in config.partitioning[:1]],
        ),
    )
    try:
        found = catalog.table(database, table)
        if found is None:
            raise TransientError("The table that check created in Glue could not be read back. Try again later.")
        changed = with_columns(found.definition, [COLUMN], {"airbyte_check": "1"}, form)
        catalog.update_table(database, changed, version=found.version)
        if config.partitioning:
            _check_partitions(catalog, database, found, form)
    finally:
        catalog.drop_table(database, table)


def _check_partitions(catalog: Catalog, database: str, table: GlueTable, form: FormatType) -> None:
    """Register a partition twice, as after a crash, then let the table have none."""
    place = partitions.Place(database, table, (COLUMN,), form, table.location)
    where: dict[Values, str] = {(PARTITION,): f"{table.location}{PARTITION}/"}
    for _ in range(2):
        partitions.register(catalog, place, where, lambda: None)
    partitions.synchronise(catalog, place, {}, lambda: None)
