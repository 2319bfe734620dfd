"""Which permissions are needed, and why: one table, and the IAM policies that are made from it.

    python -m destination_s3_datalake.iam FOLDER      (make spec)

Nothing is allowed that is not in the table, and everything in the table is used: the test suite records every call that
is made to S3, Glue and STS and compares both ways. KMS is called by S3 on the caller's behalf and so is in no record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Place = Literal["objects", "bucket", "listing", "catalog", "check table", "key", "role"]
Feature = Literal["always", "create_databases", "partitioning", "encryption", "assume_role"]


@dataclass(frozen=True, slots=True)
class Permission:
    """An IAM action.

    Attributes:
        calls: the API calls that it allows us, as ``service:Operation``.
        place: what it is needed on.
        needed_for: the setting that it goes with.
    """

    action: str
    calls: tuple[str, ...]
    place: Place
    needed_for: Feature
    why: str


PERMISSIONS = (
    Permission("s3:PutObject",
               ("s3:PutObject", "s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload",
                "s3:CopyObject", "s3:UploadPartCopy"),
               "objects", "always", "data files, the log"),
    Permission("s3:GetObject", ("s3:GetObject", "s3:HeadObject", "s3:CopyObject", "s3:UploadPartCopy"),
               "objects", "always", "the log, merges, compaction"),
    Permission("s3:DeleteObject", ("s3:DeleteObject", "s3:DeleteObjects"),
               "objects", "always", "replaced data, what a dead writer left"),
    Permission("s3:AbortMultipartUpload", ("s3:AbortMultipartUpload",),
               "objects", "always", "uploads that a dead writer left"),
    Permission("s3:ListBucket", ("s3:ListObjects",),
               "listing", "always", "entries of the log, files of a table"),
    Permission("s3:ListBucketMultipartUploads", ("s3:ListMultipartUploads",),
               "bucket", "always", "uploads that a dead writer left"),
    Permission("glue:GetDatabase", ("glue:GetDatabase",), "catalog", "always", "whether the database is there"),
    Permission("glue:CreateDatabase", ("glue:CreateDatabase",), "catalog", "create_databases", "one per namespace"),
    Permission("glue:GetTable", ("glue:GetTable",), "catalog", "always", "where the table is, its columns"),
    Permission("glue:CreateTable", ("glue:CreateTable",), "catalog", "always", "a table per stream"),
    Permission("glue:UpdateTable", ("glue:UpdateTable",), "catalog", "always", "new columns, the switch of a refresh"),
    Permission("glue:DeleteTable", ("glue:DeleteTable",), "check table", "always", "the table that check made"),
    Permission("glue:GetPartitions", ("glue:GetPartitions",), "catalog", "partitioning", "what is registered"),
    Permission("glue:BatchGetPartition", ("glue:BatchGetPartition",), "catalog", "partitioning", "where they are"),
    Permission("glue:BatchCreatePartition", ("glue:BatchCreatePartition",), "catalog", "partitioning", "new ones"),
    Permission("glue:BatchUpdatePartition", ("glue:BatchUpdatePartition",), "catalog", "partitioning",
               "new columns, the switch of a refresh"),
    Permission("glue:BatchDeletePartition", ("glue:BatchDeletePartition",), "catalog", "partitioning",
               "those that a refresh left without rows"),
    Permission("sts:AssumeRole", ("sts:AssumeRole",), "role", "assume_role", "credentials that renew themselves"),
    Permission("kms:GenerateDataKey", (), "key", "encryption", "S3 encrypts with it"),
    Permission("kms:Decrypt", (), "key", "encryption", "S3 decrypts with it, also to complete an upload"),
)  # fmt: skip

# Placeholders of the policies, in the words of the form.
BUCKET, PREFIX = "S3_BUCKET_NAME", "S3_BUCKET_PATH"
GLUE, DATABASE = "arn:aws:glue:S3_BUCKET_REGION:ACCOUNT_ID", "GLUE_DATABASE"
RESOURCES: dict[Place, list[str]] = {
    "objects": [f"arn:aws:s3:::{BUCKET}/{PREFIX}/*"],
    "bucket": [f"arn:aws:s3:::{BUCKET}"],
    "listing": [f"arn:aws:s3:::{BUCKET}"],
    "catalog": [f"{GLUE}:catalog", f"{GLUE}:database/{DATABASE}", f"{GLUE}:table/{DATABASE}/*"],
    "check table": [
        f"{GLUE}:catalog",
        f"{GLUE}:database/{DATABASE}",
        f"{GLUE}:table/{DATABASE}/airbyte_check_*",
    ],
    "key": ["KMS_KEY_ARN"],
    "role": ["ROLE_ARN"],
}
CONDITIONS: dict[Place, dict[str, Any]] = {
    "listing": {"StringLike": {"s3:prefix": [f"{PREFIX}/*"]}},
    "key": {"StringEquals": {"kms:ViaService": "s3.S3_BUCKET_REGION.amazonaws.com"}},
}
OF_A_WRITER: tuple[Feature, ...] = ("create_databases", "partitioning", "encryption")


def policy(features: Iterable[Feature] = ()) -> dict[str, Any]:
    """The policy for a writer: what is always needed, and what these features need."""
    return _document(("always", *features))


def caller_policy() -> dict[str, Any]:
    """The policy for the user who only assumes the role that writes."""
    return _document(("assume_role",))


def trust_policy() -> dict[str, Any]:
    """Who may assume the role that writes, and with which external ID."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "USER_OR_ROLE_ARN"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "EXTERNAL_ID"}},
            }
        ],
    }


def _document(features: Iterable[Feature]) -> dict[str, Any]:
    chosen = set(features)
    by_place: dict[Place, list[str]] = {}
    for permission in PERMISSIONS:
        if permission.needed_for in chosen:
            by_place.setdefault(permission.place, []).append(permission.action)
    return {"Version": "2012-10-17", "Statement": [_statement(*found) for found in by_place.items()]}


def _statement(place: Place, actions: list[str]) -> dict[str, Any]:
    condition = {"Condition": CONDITIONS[place]} if place in CONDITIONS else {}
    name = "".join(word.capitalize() for word in place.split())
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": RESOURCES[place], **condition}


def files() -> dict[str, dict[str, Any]]:
    """The policies that are kept in the repository, by file name."""
    return {
        "writer.json": policy(),
        "writer-all-options.json": policy(OF_A_WRITER),
        "role-caller.json": caller_policy(),
        "role-trust.json": trust_policy(),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    for name, document in files().items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
