"""Glue databases and tables: pure request builders, and thin methods that send them.

Location, our columns and the SerDe are ours; every other key of a table (parameters, comments, columns of others,
owner, retention) is foreign and survives each update, which is read, modify, write with the ``VersionId`` that was
read. Facts: ``PartitionKeys`` must be ``[]`` and not absent, or Athena fails; ``SkipArchive`` keeps table versions from
piling up against the account's quota.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError

from destination_s3_datalake.config import FormatType
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.lake.aws_errors import code_of, patiently, translated
from destination_s3_datalake.records.schema import GlueColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_glue.client import GlueClient

T = TypeVar("T")
TableInput = dict[str, Any]

LOG_ID, SEQ, STREAM = "airbyte_log_id", "airbyte_seq", "airbyte_stream"
PARTITIONING = "airbyte_partitioning"
KIND = "airbyte_type"  # of a column
COLUMNS, GENERATION, LAST_COMMIT_AT = "airbyte_columns", "airbyte_generation", "airbyte_last_commit_at"

# What GetTable answers and UpdateTable does not take.
READ_ONLY = {"DatabaseName", "CreateTime", "UpdateTime", "CreatedBy", "IsRegisteredWithLakeFormation", "CatalogId",
             "VersionId", "FederatedTable", "IsMultiDialectView", "Status", "IsMaterializedView"}  # fmt: skip


# What GetPartitions answers and an update does not take.
READ_ONLY_OF_PARTITION = {"DatabaseName", "TableName", "CreationTime", "CatalogId"}


@dataclass(frozen=True, slots=True)
class Storage:
    """How Hive, Athena and Spark read and write files of a format."""

    input: str
    output: str
    serde: str
    serde_parameters: Mapping[str, str]
    parameters: Mapping[str, str]


TEXT_INPUT = "org.apache.hadoop.mapred.TextInputFormat"
TEXT_OUTPUT = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
STORAGE: dict[FormatType, Storage] = {
    "parquet": Storage(
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        {"serialization.format": "1"},
        {"classification": "parquet"},
    ),
    "jsonl": Storage(
        TEXT_INPUT,
        TEXT_OUTPUT,
        "org.openx.data.jsonserde.JsonSerDe",
        {"serialization.format": "1"},
        {"classification": "json"},
    ),
    "csv": Storage(
        TEXT_INPUT,
        TEXT_OUTPUT,
        "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        {
            "serialization.format": ",",
            "field.delim": ",",
            "escape.delim": "\\",
            "serialization.null.format": "\\N",
        },
        {"classification": "csv", "delimiter": ",", "columnsOrdered": "true", "areColumnsQuoted": "false"},
    ),
}
BY_PLACE: frozenset[FormatType] = frozenset({"csv"})  # formats that know a column by its place and not by its name


class TableMovedError(Exception):
    """The table is no longer the version that was read. Internal to the lake: read again and decide again."""


@dataclass(frozen=True, slots=True)
class GlueTable:
    """A table as it was read. ``definition`` is what an update takes."""

    name: str
    version: str | None
    definition: TableInput

    @property
    def location(self) -> str:
        return str(self.definition.get("StorageDescriptor", {}).get("Location", ""))

    @property
    def columns(self) -> tuple[GlueColumn, ...]:
        found = self.definition.get("StorageDescriptor", {}).get("Columns", ())
        return tuple(
            GlueColumn(
                Name=c["Name"],
                Type=c.get("Type", ""),
                Comment=c.get("Comment", ""),
                Kind=(c.get("Parameters") or {}).get(KIND, ""),
            )
            for c in found
        )

    @property
    def serde(self) -> str:
        descriptor = self.definition.get("StorageDescriptor") or {}
        return str((descriptor.get("SerdeInfo") or {}).get("SerializationLibrary", ""))

    @property
    def parameters(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.definition.get("Parameters") or {}
        return found

    @property
    def seq(self) -> int:
        """``airbyte_seq``; -1 if there is none."""
        text = self.parameters.get(SEQ, "-1")
        return int(text) if text.lstrip("-").isdigit() else -1


@dataclass(frozen=True, slots=True)
class GluePartition:
    """A partition. ``definition`` is what create and update take."""

    values: tuple[str, ...]
    definition: dict[str, Any]

    @property
    def location(self) -> str:
        return str((self.definition.get("StorageDescriptor") or {}).get("Location", ""))


def format_of(table: GlueTable) -> FormatType | None:
    """The format that the table's SerDe reads; None if it is none of ours."""
    return next((name for name, storage in STORAGE.items() if storage.serde == table.serde), None)


def adoptable_format(table: GlueTable) -> Literal["parquet", "jsonl"] | None:
    """The format of a table's files if this destination can go on in it."""
    if "parquet" in table.serde.lower():
        return "parquet"
    return "jsonl" if format_of(table) == "jsonl" else None


def new_table(
    name: str,
    *,
    location: str,
    columns: Sequence[GlueColumn],
    parameters: Mapping[str, str],
    file_format: FormatType,
    partition_keys: Sequence[str] = (),
) -> TableInput:
    """A table as Hive, Athena and Spark expect it."""
    storage = STORAGE[file_format]
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": key, "Type": "string"} for key in partition_keys],
        "Parameters": {"EXTERNAL": "TRUE", "typeOfData": "file", **storage.parameters, **parameters},
        "StorageDescriptor": {
            "Location": location,
            "Columns": [column_input(column) for column in columns],
            "Compressed": False,
            "NumberOfBuckets": -1,
            "StoredAsSubDirectories": False,
            **_storage(storage, {}),
        },
    }


def moved(
    table: TableInput,
    *,
    location: str,
    columns: Sequence[GlueColumn],
    parameters: Mapping[str, str],
    file_format: FormatType,
) -> TableInput:
    """The table at another location, with these columns, in this format, everything foreign kept."""
    found = GlueTable(str(table.get("Name", "")), None, table)
    storage = STORAGE[file_format]
    if found.serde == storage.serde:
        return _changed(table, {"Location": location}, columns, parameters, file_format)
    gone = {name for other in STORAGE.values() for name in other.parameters}
    kept = {name: value for name, value in found.parameters.items() if name not in gone}
    descriptor = {"Location": location, **_storage(storage, table.get("StorageDescriptor", {}).get("SerdeInfo") or {})}
    return _changed(
        {**table, "Parameters": kept}, descriptor, columns, {**storage.parameters, **parameters}, file_format
    )


def with_columns(
    table: TableInput, columns: Sequence[GlueColumn], parameters: Mapping[str, str], file_format: FormatType
) -> TableInput:
    """The table with these columns, everything foreign kept."""
    return _changed(table, {}, columns, parameters, file_format)


def _storage(storage: Storage, serde: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a storage descriptor that say how files are read; what others added to the SerDe is its own."""
    named = {"Name": serde["Name"]} if "Name" in serde else {}
    return {
        "InputFormat": storage.input,
        "OutputFormat": storage.output,
        "SerdeInfo": {
            **named,
            "SerializationLibrary": storage.serde,
            "Parameters": dict(storage.serde_parameters),
        },
    }


def column_input(column: GlueColumn, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The column as Glue takes it, on top of the parameters that it has there."""
    said = {KIND: column.Kind} if column.Kind else {}
    kept = {name: value for name, value in (parameters or {}).items() if name != KIND} | said
    found: dict[str, Any] = {"Name": column.Name, "Type": column.Type, "Comment": column.Comment}
    return found | ({"Parameters": kept} if kept or parameters else {})


def columns_with_foreign(
    ours: Sequence[GlueColumn], present: Sequence[Mapping[str, Any]], file_format: FormatType
) -> list[dict[str, Any]]:
    """Our columns over those that stand in Glue: order, comments, parameters and columns of others survive.

    Where a column is known by its place, ours come first and in their order.
    """
    wanted = {column.Name: column for column in ours}
    kept = []
    for column in present:
        mine = wanted.pop(column["Name"], None)
        comment = column.get("Comment") or (mine.Comment if mine else "")
        own = column_input(mine, column.get("Parameters") or {}) if mine else {}
        kept.append({**column, **own, **({"Comment": comment} if comment else {})})
    merged = kept + [column_input(column) for column in wanted.values()]
    if file_format in BY_PLACE:
        places = {column.Name: place for place, column in enumerate(ours)}
        merged.sort(key=lambda column: places.get(column["Name"], len(places)))
    return merged


def _changed(
    table: TableInput,
    storage: Mapping[str, Any],
    columns: Sequence[GlueColumn],
    parameters: Mapping[str, str],
    file_format: FormatType,
) -> TableInput:
    descriptor = table.get("StorageDescriptor", {})
    merged = columns_with_foreign(columns, descriptor.get("Columns", ()), file_format)
    return {
        **table,
        "Parameters": {**(table.get("Parameters") or {}), **parameters},
        "StorageDescriptor": {**descriptor, **storage, "Columns": merged},
    }


class Catalog:
    """The Glue catalog of one account."""

    def __init__(self, client: GlueClient, *, catalog_id: str | None, create_databases: bool):
        self._client = client
        self._scope: dict[str, Any] = {"CatalogId": catalog_id} if catalog_id else {}
        self._create_databases = create_databases

    def ensure_database(self, name: str) -> None:
        """The database exists afterwards.

        Raises:
            ConfigError: it does not exist and may not be created.
        """
        try:
            patiently(lambda: self._client.get_database(Name=name, **self._scope))
            return
        except ClientError as error:
            if code_of(error) != "EntityNotFoundException":
                raise translated(error, action="glue:GetDatabase", resource=f"database {name}") from None
        except BotoCoreError as error:
            raise translated(error, action="glue:GetDatabase", resource=f"database {name}") from None
        if not self._create_databases:
            raise ConfigError(f"The Glue database {name} does not exist: create it, or set create_databases.")
        try:
            self._call(
                lambda: self._client.create_database(DatabaseInput={"Name": name}, **self._scope),
                "glue:CreateDatabase",
                f"database {name}",
            )
        except _TakenError:
            return

    def table(self, database: str, name: str) -> GlueTable | None:
        """The table as it stands; None if there is none."""
        try:
            answer: Any = patiently(
                lambda: self._client.get_table(DatabaseName=database, Name=name, **self._scope)["Table"]
            )
        except ClientError as error:
            if code_of(error) == "EntityNotFoundException":
                return None
            raise translated(error, action="glue:GetTable", resource=f"table {database}.{name}") from None
        except BotoCoreError as error:
            raise translated(error, action="glue:GetTable", resource=f"table {database}.{name}") from None
        version = answer.get("VersionId")
        return GlueTable(name, version, {key: value for key, value in answer.items() if key not in READ_ONLY})

    def create_table(self, database: str, table: TableInput) -> None:
        """Create a table.

        Raises:
            TableMovedError: it exists, perhaps by an earlier try of this very call.
        """
        try:
            self._call(
                lambda: self._client.create_table(DatabaseName=database, TableInput=cast(Any, table), **self._scope),
                "glue:CreateTable",
                f"table {database}.{table['Name']}",
            )
        except _TakenError:
            raise TableMovedError(table["Name"]) from None

    def update_table(self, database: str, table: TableInput, *, version: str | None) -> None:
        """Replace the definition of a table if it is still the version that was read.

        Raises:
            TableMovedError: it is not; or an earlier try of this very call was applied and its answer lost.
        """
        condition: dict[str, Any] = {} if version is None else {"VersionId": version}
        resource = f"table {database}.{table['Name']}"
        try:
            self._client.update_table(
                DatabaseName=database,
                TableInput=cast(Any, table),
                SkipArchive=True,
                **condition,
                **self._scope,
            )
        except ClientError as error:
            if code_of(error) in ("ConcurrentModificationException", "EntityNotFoundException"):
                raise TableMovedError(table["Name"]) from None
            raise translated(error, action="glue:UpdateTable", resource=resource) from None
        except BotoCoreError as error:
            raise translated(error, action="glue:UpdateTable", resource=resource) from None

    def partitions(self, database: str, name: str) -> Iterator[list[GluePartition]]:
        """Every partition of a table, page by page."""
        token: dict[str, Any] = {}
        while True:
            page: Any = self._call(
                partial(self._client.get_partitions, DatabaseName=database, TableName=name, **token, **self._scope),
                "glue:GetPartitions",
                f"table {database}.{name}",
            )
            yield [_partition(found) for found in page["Partitions"]]
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def partitions_of(self, database: str, name: str, values: Sequence[tuple[str, ...]]) -> list[GluePartition]:
        """Up to 1000 partitions by their values; those that do not exist are left out."""
        wanted: Any = [{"Values": list(each)} for each in values]
        answer: Any = self._call(
            lambda: self._client.batch_get_partition(
                DatabaseName=database, TableName=name, PartitionsToGet=wanted, **self._scope
            ),
            "glue:BatchGetPartition",
            f"table {database}.{name}",
        )
        return [_partition(found) for found in answer["Partitions"]]

    def create_partitions(self, database: str, name: str, partitions: Sequence[GluePartition]) -> list[tuple[str, ...]]:
        """Create up to 100 partitions; the values of those that exist already, perhaps by an earlier try."""
        inputs: Any = [found.definition for found in partitions]
        answer: Any = self._call(
            lambda: self._client.batch_create_partition(
                DatabaseName=database, TableName=name, PartitionInputList=inputs, **self._scope
            ),
            "glue:BatchCreatePartition",
            f"table {database}.{name}",
        )
        taken = []
        for failed in answer.get("Errors") or ():
            if failed["ErrorDetail"]["ErrorCode"] != "AlreadyExistsException":
                raise _partition_error(failed, "glue:BatchCreatePartition", f"table {database}.{name}")
            taken.append(tuple(failed["PartitionValues"]))
        return taken

    def update_partitions(self, database: str, name: str, partitions: Sequence[GluePartition]) -> None:
        """Replace the definition of up to 100 partitions."""
        entries: Any = [
            {"PartitionValueList": list(found.values), "PartitionInput": found.definition} for found in partitions
        ]
        answer: Any = self._call(
            lambda: self._client.batch_update_partition(
                DatabaseName=database, TableName=name, Entries=entries, **self._scope
            ),
            "glue:BatchUpdatePartition",
            f"table {database}.{name}",
        )
        for failed in answer.get("Errors") or ():
            raise _partition_error(failed, "glue:BatchUpdatePartition", f"table {database}.{name}")

    def drop_partitions(self, database: str, name: str, values: Sequence[tuple[str, ...]]) -> None:
        """Drop up to 25 partitions; their files stay."""
        doomed: Any = [{"Values": list(each)} for each in values]
        answer: Any = self._call(
            lambda: self._client.batch_delete_partition(
                DatabaseName=database, TableName=name, PartitionsToDelete=doomed, **self._scope
            ),
            "glue:BatchDeletePartition",
            f"table {database}.{name}",
        )
        for failed in answer.get("Errors") or ():
            if failed["ErrorDetail"]["ErrorCode"] != "EntityNotFoundException":
                raise _partition_error(failed, "glue:BatchDeletePartition", f"table {database}.{name}")

    def drop_table(self, database: str, name: str) -> None:
        """Drop a table; only ``check`` does, with a table of its own."""
        self._call(
            lambda: self._client.delete_table(DatabaseName=database, Name=name, **self._scope),
            "glue:DeleteTable",
            f"table {database}.{name}",
        )

    def _call(self, call: Callable[[], T], action: str, resource: str) -> T:
        try:
            return patiently(call)
        except ClientError as error:
            if code_of(error) == "AlreadyExistsException":
                raise _TakenError from None
            raise translated(error, action=action, resource=resource) from None
        except BotoCoreError as error:
            raise translated(error, action=action, resource=resource) from None


def _partition(found: Mapping[str, Any]) -> GluePartition:
    definition = {key: value for key, value in found.items() if key not in READ_ONLY_OF_PARTITION}
    return GluePartition(tuple(found["Values"]), definition)


def _partition_error(failed: Mapping[str, Any], action: str, resource: str) -> Exception:
    """What was wrong with one partition of a batch. A partition that vanished meanwhile is there again next time."""
    code = failed["ErrorDetail"]["ErrorCode"]
    code = "ConcurrentModificationException" if code == "EntityNotFoundException" else code
    error = ClientError({"Error": {"Code": code, "Message": ""}}, action.partition(":")[2])
    return translated(error, action=action, resource=resource)


class _TakenError(Exception):
    """The name exists already."""
