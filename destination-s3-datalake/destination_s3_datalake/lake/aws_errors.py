"""botocore's errors -> ours: one table, with the sentence that tells the user what to change.

The original error is never chained into the message: botocore quotes request parameters in some of its texts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from destination_s3_datalake.errors import ConfigError, DatalakeError, InternalError, TransientError

T = TypeVar("T")

WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "UnrecognizedClientException",
             "AuthFailure", "InvalidSignatureException", "MissingAuthenticationToken"}  # fmt: skip
DENIED = {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden", "403", "UnauthorizedOperation"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
NO_BUCKET = {"NoSuchBucket"}
KMS_CONFIG = {"KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException",
              "GlueEncryptionException", "KMS.AccessDeniedException"}  # fmt: skip
PASSING = {"SlowDown", "ServiceUnavailable", "InternalError", "InternalServiceException", "RequestTimeout",
           "ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException",
           "OperationTimeoutException", "ConditionalRequestConflict", "ConcurrentModificationException",
           "ResourceNotReadyException", "KMS.ThrottlingException", "RequestLimitExceeded", "500", "502", "503", "504",
           "OperationAborted", "InternalFailure"}  # fmt: skip

PATIENCE_SECONDS = 900.0


def code_of(error: ClientError) -> str:
    """The error's code, the HTTP status as text where it has none (HEAD answers have no body)."""
    code = str(error.response.get("Error", {}).get("Code") or "")
    return code or str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of(error) in PASSING or status >= 500
    return isinstance(error, BotoCoreError) and not isinstance(
        error, NoCredentialsError | PartialCredentialsError | ParamValidationError | ProfileNotFound
    )


def patiently(call: Callable[[], T], *, patience: float = PATIENCE_SECONDS, attempts: int = 12) -> T:
    """``call`` again with growing, jittered pauses while its failure is a passing one.

    botocore has retried each call already; this is for writers that would lose work by giving up.
    """
    deadline = time.monotonic() + patience
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except (ClientError, BotoCoreError) as error:
            unreachable = isinstance(error, EndpointConnectionError)  # botocore has tried for a while already
            if attempt == attempts or unreachable or not is_passing(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0, min(20.0, 0.1 * 2**attempt)))  # noqa: S311  # jitter, not a secret
    raise InternalError("The loop over attempts ended without a result.")


def translated(error: ClientError | BotoCoreError, *, action: str, resource: str) -> DatalakeError:
    """Our error for botocore's. ``action`` is the IAM action, such as ``s3:PutObject``; ``resource`` what it was on."""
    if not isinstance(error, ClientError):
        return _without_answer(error, action, resource)
    if error.operation_name == "AssumeRole":  # botocore asks for a role's session in the middle of any other call
        action, resource = "sts:AssumeRole", "role_arn"
    code = code_of(error)
    facts = {"action": action, "resource": resource, "aws_code": code}
    if code in WRONG_KEY:
        return ConfigError("AWS does not know these credentials: check access key ID and secret access key.", **facts)
    if code in NO_BUCKET or (code == "404" and action == "s3:ListBucket"):
        return ConfigError(
            f"The bucket {resource.removeprefix('s3://').partition('/')[0]} does not exist: create it, or correct "
            "s3_bucket_name or s3_endpoint.",
            **facts,
        )
    if code in KMS_CONFIG or "kms" in str(error.response.get("Error", {}).get("Message", "")).lower():
        return ConfigError(
            f"AWS refused {action} on {resource} because of its KMS key: allow kms:GenerateDataKey and kms:Decrypt, "
            "and check that the key is enabled.",
            **facts,
        )
    if code in DENIED:
        return ConfigError(
            f"AWS denied {action} on {resource}: allow this action for the user or role of the credentials.", **facts
        )
    if code in EXPIRED:
        return TransientError(
            f"The credentials expired during {action}: give new ones, or use a role, which refreshes itself.", **facts
        )
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        return ConfigError(f"The bucket is in another region: correct s3_bucket_region ({resource}).", **facts)
    if is_passing(error):
        return TransientError(f"AWS could not do {action} on {resource} just now ({code}). Try again later.", **facts)
    return ConfigError(f"AWS refused {action} on {resource} ({code}). Check the endpoint and its permissions.", **facts)


def _without_answer(error: BotoCoreError, action: str, resource: str) -> DatalakeError:
    facts = {"action": action, "resource": resource, "aws_code": type(error).__name__}
    match error:
        case NoCredentialsError() | PartialCredentialsError() | ProfileNotFound():
            return ConfigError("No AWS credentials were found: set them in the form, or on the machine.", **facts)
        case ParamValidationError():
            return InternalError(f"A request for {action} was not valid.", **facts)
        case EndpointConnectionError():
            return TransientError(
                "The endpoint cannot be reached: check s3_bucket_region, s3_endpoint, glue_endpoint and the network.",
                **facts,
            )
        case _:
            return TransientError(f"No answer to {action} on {resource} ({type(error).__name__}).", **facts)
