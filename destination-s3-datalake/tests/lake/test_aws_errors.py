"""Which of our errors each of AWS's is, and what it tells the user."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from destination_s3_datalake.lake.aws_errors import translated


def refused(code: str, status: int = 400, message: str = "") -> ClientError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (refused("AccessDenied", 403), "config_error", "s3:PutObject"),
        (refused("AccessDenied", 403, "not authorized to perform kms:GenerateDataKey"), "config_error", "kms:Decrypt"),
        (refused("KMS.DisabledException"), "config_error", "KMS key"),
        (refused("KMS.ThrottlingException"), "transient_error", "later"),
        (refused("NoSuchBucket", 404), "config_error", "does not exist"),
        (refused("PermanentRedirect", 301), "config_error", "s3_bucket_region"),
        (refused("InvalidAccessKeyId", 403), "config_error", "secret access key"),
        (refused("ExpiredToken"), "transient_error", "expired"),
        (refused("SlowDown", 503), "transient_error", "later"),
        (refused("InternalError", 500), "transient_error", "later"),
        (refused("ConcurrentModificationException"), "transient_error", "later"),
        (refused("Weird", 418), "config_error", "Check the endpoint"),
        (EndpointConnectionError(endpoint_url="http://x"), "transient_error", "endpoint"),
        (NoCredentialsError(), "config_error", "credentials"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_of_aws_says_who_should_act_and_how(error: ClientError, kind: str, says: str):
    ours = translated(error, action="s3:PutObject", resource="s3://lake/key")
    assert ours.failure_type == kind
    assert says in ours.message
