"""The S3 verbs that the lake needs, on one bucket; botocore's errors become ours here.

Every verb may be repeated. A conditional PUT whose answer was lost is answered 412 to the repetition, against
ourselves: callers compare what stands there (``table_log.py``). CreateMultipartUpload whose answer was lost leaks an
upload without parts, which the next opener aborts.
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from destination_s3_datalake.config import BucketDefault, DsseKms, Encryption, SseKms, SseS3
from destination_s3_datalake.errors import TransientError
from destination_s3_datalake.lake.aws_errors import code_of, patiently, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import (
        DeleteObjectsOutputTypeDef,
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        ObjectIdentifierTypeDef,
        UploadPartCopyOutputTypeDef,
    )

T = TypeVar("T")
MOST_DELETES = 1000  # S3's own limit
MOST_COPIED = 5 << 30  # S3's own limit for one request
DOWNLOAD = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
MISSING = {"NoSuchKey", "404", "NotFound"}


class AlreadyThereError(Exception):
    """A conditional PUT found its key taken. Internal to the lake: callers decide what it means."""


class NoSuchUploadError(Exception):
    """The upload was completed or aborted by somebody, perhaps by us. Internal to the lake."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as HEAD shows it. Times are S3's own, UTC, whole seconds."""

    size: int
    modified: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a listing shows it."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class PendingUpload:
    key: str
    upload_id: str


class Bucket:
    """One bucket, with the encryption that every write carries."""

    def __init__(self, client: S3Client, name: str, encryption: Encryption):
        self._client = client
        self.name = name
        self._sse = _encryption_arguments(encryption)

    def put(self, key: str, body: bytes, *, overwrite: bool = True) -> None:
        """Write an object.

        Raises:
            AlreadyThereError: ``overwrite`` is false and the key is taken, perhaps by an earlier try of this very call.
        """
        condition: dict[str, Any] = {} if overwrite else {"IfNoneMatch": "*"}
        try:
            patiently(lambda: self._client.put_object(Bucket=self.name, Key=key, Body=body, **condition, **self._sse))
        except ClientError as error:
            if code_of(error) in ("PreconditionFailed", "412"):
                raise AlreadyThereError(key) from None
            raise self._translated(error, "s3:PutObject", key) from None
        except BotoCoreError as error:
            raise self._translated(error, "s3:PutObject", key) from None

    def get(self, key: str) -> bytes | None:
        """The whole object; None if there is none."""
        try:
            return patiently(partial(self._read, key))
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise self._translated(error, "s3:GetObject", key) from None
        except BotoCoreError as error:
            raise self._translated(error, "s3:GetObject", key) from None

    def _read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def download(self, key: str, path: Path) -> None:
        """Fetch an object into a local file, in ranges and in parallel.

        Raises:
            ConfigError: there is no such object: somebody deleted it.
            TransientError: the disk is full, or S3 does not answer.
        """
        try:
            patiently(lambda: self._client.download_file(self.name, key, str(path), Config=DOWNLOAD))
        except ClientError as error:
            raise self._translated(error, "s3:GetObject", key) from None
        except BotoCoreError as error:
            raise self._translated(error, "s3:GetObject", key) from None
        except Boto3Error as error:
            raise TransientError(f"s3://{self.name}/{key} could not be read ({type(error).__name__}).") from None
        except OSError as cause:
            raise TransientError(
                f"The spool could not be written ({cause.strerror}): give spool_directory more space."
            ) from None

    def copy(self, source: str, target: str, *, size: int) -> None:
        """Copy an object inside the bucket, server side, whatever its size."""
        if size <= MOST_COPIED:
            self._call(
                lambda: self._client.copy_object(
                    Bucket=self.name, Key=target, CopySource={"Bucket": self.name, "Key": source}, **self._sse
                ),
                "s3:PutObject",
                target,
            )
            return
        upload_id, etags = self.start_upload(target), []
        for number, first in enumerate(range(0, size, MOST_COPIED), start=1):
            span = f"bytes={first}-{min(size, first + MOST_COPIED) - 1}"
            answer = self._call(
                partial(self._copy_part, source, target, upload_id, number, span), "s3:PutObject", target
            )
            etags.append(answer["CopyPartResult"]["ETag"])
        self.complete_upload(target, upload_id, tuple(etags))

    def head(self, key: str) -> ObjectInfo | None:
        """Size and time of the object; None if there is none."""
        try:
            answer = patiently(lambda: self._client.head_object(Bucket=self.name, Key=key))
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise self._translated(error, "s3:GetObject", key) from None
        except BotoCoreError as error:
            raise self._translated(error, "s3:GetObject", key) from None
        now = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return ObjectInfo(answer["ContentLength"], answer["LastModified"].astimezone(UTC), now.astimezone(UTC))

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Every key below ``prefix``, sorted."""
        return (found.key for found in self.objects(prefix, after=after))

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """Every object below ``prefix``, sorted by key."""
        token: dict[str, Any] = {"StartAfter": after} if after else {}
        while True:
            page = self._call(partial(self._list, prefix, token), "s3:ListBucket", prefix)
            for item in page.get("Contents", ()):
                yield ListedObject(item["Key"], item["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def folders(self, prefix: str) -> list[str]:
        """The folders directly below ``prefix`` (which ends with a slash), without their slashes."""
        found: list[str] = []
        token: dict[str, Any] = {"Delimiter": "/"}
        while True:
            page = self._call(partial(self._list, prefix, token), "s3:ListBucket", prefix)
            found.extend(item["Prefix"].rstrip("/") for item in page.get("CommonPrefixes", ()))
            if not page.get("IsTruncated"):
                return found
            token = {"Delimiter": "/", "ContinuationToken": page["NextContinuationToken"]}

    def delete_many(self, keys: list[str]) -> None:
        """Delete objects, a thousand a request; keys without an object are no error."""
        for first in range(0, len(keys), MOST_DELETES):
            part = keys[first : first + MOST_DELETES]
            answer = self._call(partial(self._delete, part), "s3:DeleteObject", part[0])
            for failed in answer.get("Errors", ()):
                raise self._translated(
                    ClientError({"Error": {"Code": failed.get("Code", ""), "Message": ""}}, "DeleteObjects"),
                    "s3:DeleteObject",
                    failed.get("Key", part[0]),
                )

    def delete(self, key: str) -> None:
        """Delete an object, or do nothing if there is none."""
        self._call(lambda: self._client.delete_object(Bucket=self.name, Key=key), "s3:DeleteObject", key)

    def start_upload(self, key: str) -> str:
        """Begin a multipart upload and return its id."""
        answer = self._call(
            lambda: self._client.create_multipart_upload(Bucket=self.name, Key=key, **self._sse), "s3:PutObject", key
        )
        return answer["UploadId"]

    def upload_part(self, key: str, upload_id: str, *, number: int, body: bytes) -> str:
        """Send part ``number`` (from 1) and return its ETag.

        Raises:
            NoSuchUploadError: somebody aborted the upload.
        """
        return self._call(
            lambda: self._client.upload_part(
                Bucket=self.name, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            ),
            "s3:PutObject",
            key,
        )["ETag"]

    def complete_upload(self, key: str, upload_id: str, etags: tuple[str, ...]) -> None:
        """Make the uploaded object visible.

        Raises:
            NoSuchUploadError: it was completed or aborted before.
        """
        parts = [{"ETag": etag, "PartNumber": number} for number, etag in enumerate(etags, start=1)]
        self._call(
            lambda: self._client.complete_multipart_upload(
                Bucket=self.name,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
            ),
            "s3:PutObject",
            key,
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts, or do nothing if it is gone."""
        try:
            self._call(
                lambda: self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload_id),
                "s3:AbortMultipartUpload",
                key,
            )
        except NoSuchUploadError:
            return

    def uploads(self, prefix: str) -> Iterator[PendingUpload]:
        """Every upload in progress below ``prefix``."""
        token: dict[str, Any] = {}
        while True:
            page = self._call(partial(self._list_uploads, prefix, token), "s3:ListBucketMultipartUploads", prefix)
            for item in page.get("Uploads", ()):
                yield PendingUpload(item["Key"], item["UploadId"])
            if not page.get("IsTruncated"):
                return
            token = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    # Own paging: boto3's iterators end for good at the first error, so that a retried page would be a silent end.
    def _list(self, prefix: str, token: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        return self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, **token)

    def _copy_part(
        self, source: str, target: str, upload_id: str, number: int, span: str
    ) -> UploadPartCopyOutputTypeDef:
        return self._client.upload_part_copy(
            Bucket=self.name,
            Key=target,
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self.name, "Key": source},
            CopySourceRange=span,
        )

    def _delete(self, keys: list[str]) -> DeleteObjectsOutputTypeDef:
        objects: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys]
        return self._client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})

    def _list_uploads(self, prefix: str, token: dict[str, Any]) -> ListMultipartUploadsOutputTypeDef:
        return self._client.list_multipart_uploads(Bucket=self.name, Prefix=prefix, **token)

    def _call(self, call: Callable[[], T], action: str, key: str) -> T:
        try:
            return patiently(call)
        except ClientError as error:
            if code_of(error) == "NoSuchUpload":
                raise NoSuchUploadError(key) from None
            raise self._translated(error, action, key) from None
        except BotoCoreError as error:
            raise self._translated(error, action, key) from None

    def _translated(self, error: ClientError | BotoCoreError, action: str, key: str) -> Exception:
        return translated(error, action=action, resource=f"s3://{self.name}/{key}")


def _encryption_arguments(encryption: Encryption) -> dict[str, Any]:
    match encryption:
        case BucketDefault():
            return {}
        case SseS3():
            return {"ServerSideEncryption": "AES256"}
        case SseKms(kms_key_arn=key, bucket_key=bucket_key):
            arguments: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": bucket_key}
            return {**arguments, "SSEKMSKeyId": key} if key else arguments
        case DsseKms(kms_key_arn=key):
            arguments = {"ServerSideEncryption": "aws:kms:dsse"}
            return {**arguments, "SSEKMSKeyId": key} if key else arguments
