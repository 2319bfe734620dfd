"""Airbyte destination: Glue-cataloged Parquet on S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from destination_s3_datalake.destination import DestinationS3Datalake

__all__ = ["DestinationS3Datalake"]


def __getattr__(name: str) -> Any:
    """The CDK's class, imported when somebody asks for it: the command line must start without airbyte_cdk."""
    if name == "DestinationS3Datalake":
        from destination_s3_datalake.destination import DestinationS3Datalake

        return DestinationS3Datalake
    raise AttributeError(name)
