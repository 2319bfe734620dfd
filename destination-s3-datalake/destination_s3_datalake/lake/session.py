"""boto3 clients from the configuration: credentials that refresh themselves, retries, owner checks.

Facts behind the numbers: botocore refreshes assumed-role credentials 15 minutes before they end, so sessions shorter
than an hour would be refreshed at every call; the ``standard`` retry mode has a quota per client, so that callers that
must not give up retry around it (``s3.py``, ``glue.py``); its own reader of service descriptions takes 60 ms longer
than orjson, an eighth of what a short sync takes in all.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import orjson
from botocore.config import Config as BotoConfig
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.loaders import JSONFileLoader

from destination_s3_datalake.config import AccessKey, AssumeRole, Config, DefaultChain

if TYPE_CHECKING:
    from mypy_boto3_glue.client import GlueClient
    from mypy_boto3_s3.client import S3Client

ROLE_SESSION_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Clients:
    """One client per service, safe to share between threads."""

    s3: S3Client
    glue: GlueClient


class ServiceFiles(JSONFileLoader):
    """AWS's service descriptions, which come with botocore."""

    def load_file(self, file_path: str) -> Any:
        """The description at a path without its ending, None if there is none."""
        for ending, opened in ((".json", open), (".json.gz", gzip.open)):
            try:
                with opened(file_path + ending, "rb") as file:
                    return orjson.loads(file.read())
            except FileNotFoundError:
                continue
        return None


def connect(config: Config, *, attempts: int = 10) -> Clients:
    """Clients for a configuration, which try each request up to ``attempts`` times. No request is made here."""
    session = boto3.Session(botocore_session=_session(config), region_name=config.s3_bucket_region)
    s3 = session.client(
        "s3",
        endpoint_url=config.s3_endpoint,
        config=_options(attempts, s3={"addressing_style": config.s3_addressing}, max_pool_connections=16),
    )
    if config.expected_bucket_owner:
        _expect_owner(s3, config.expected_bucket_owner)
    glue = session.client("glue", endpoint_url=config.glue_endpoint, config=_options(attempts))
    return Clients(s3, glue)


def _options(attempts: int, **more: Any) -> BotoConfig:
    return BotoConfig(
        retries={"mode": "standard", "max_attempts": attempts},
        connect_timeout=10,
        read_timeout=60,
        user_agent_extra="destination-s3-datalake",
        **more,
    )


def _session(config: Config) -> botocore.session.Session:
    session = _new_session()
    match config.credentials:
        case DefaultChain():
            pass
        case AccessKey() as key:
            session.set_credentials(key.access_key_id, key.secret_access_key, key.session_token)
        case AssumeRole() as role:
            _assume(session, role, config.s3_bucket_region)
    return session


def _new_session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.get_component("data_loader").file_loader = ServiceFiles()
    return session


def _assume(session: botocore.session.Session, role: AssumeRole, region: str) -> None:
    base = _new_session()
    if role.access_key_id is not None and role.secret_access_key is not None:
        base.set_credentials(role.access_key_id, role.secret_access_key)

    def client_creator(service: str, **arguments: Any) -> Any:
        return base.create_client(service, **{"region_name": region, **arguments})

    arguments: dict[str, Any] = {
        "RoleSessionName": "destination-s3-datalake",
        "DurationSeconds": ROLE_SESSION_SECONDS,
    }
    if role.external_id:
        arguments["ExternalId"] = role.external_id
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=client_creator,
        source_credentials=base.get_credentials(),
        role_arn=role.role_arn,
        extra_args=arguments,
    )
    # botocore has no public way to give a session credentials that refresh; boto3's own documentation does this.
    session._credentials = DeferredRefreshableCredentials(  # type: ignore[attr-defined]
        method="assume-role", refresh_using=fetcher.fetch_credentials
    )


def _expect_owner(s3: S3Client, owner: str) -> None:
    def add(params: dict[str, Any], model: Any, **_: Any) -> None:
        if "ExpectedBucketOwner" in model.input_shape.members:
            params["ExpectedBucketOwner"] = owner

    s3.meta.events.register("before-parameter-build.s3", add)
