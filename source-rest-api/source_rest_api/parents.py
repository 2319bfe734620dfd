"""Which requests a child stream makes: one per combination of its parents' values.

Entries of the same parent stream take several fields of each of its records; values of different parents, and of
literal lists, are combined each with each. What stands above a parent comes along under its own name, so that a
grandchild may use it, and so that equal ids of different grandparents stay apart. A record in which one of the fields
is missing or null has no children: it is skipped, and the number of them is logged. A combination that comes again is
read once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from airbyte_cdk.sources.declarative.partition_routers.partition_router import PartitionRouter
from airbyte_cdk.sources.streams.concurrent.abstract_stream import AbstractStream
from airbyte_cdk.sources.streams.concurrent.default_stream import DefaultStream
from airbyte_cdk.sources.types import StreamSlice

from source_rest_api.boundary import CDK_ENTRY
from source_rest_api.form import Form

Values = Mapping[str, str | int]


@dataclass
class ParentRouter(PartitionRouter):
    """A component of manifest.yaml.

    Args:
        config: the whole form.
        child: the name of the stream whose parents these are.
        parents: copies of the parent streams, in the order of ``Stream.parent_streams``; each record of a copy is a
            mapping of names to values.
    """

    config: Mapping[str, Any]
    child: str
    parents: list[AbstractStream] = field(default_factory=list)

    def stream_slices(self) -> Iterable[StreamSlice]:
        """Part of the CDK's interface. A single parent is not held in memory."""
        stream = Form.of(self.config).stream(self.child)
        literals: list[list[Values]] = [
            [{parent.as_name: value} for value in parent.values] for parent in stream.parents if parent.values
        ]
        first, others = (self.parents[:1], self.parents[1:])
        rest: list[list[Values]] = [*(list(_values_of(parent)) for parent in others), *literals]
        seen: set[bytes] = set()
        for begin in _values_of(first[0]) if first else ({},):
            for combination in product(*rest):
                partition = dict(begin)
                for values in combination:
                    partition |= values
                digest = hashlib.blake2b(json.dumps(partition, sort_keys=True).encode(), digest_size=16).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield StreamSlice(partition={**partition, CDK_ENTRY: {}}, cursor_slice={})

    def get_stream_state(self) -> Mapping[str, Any]:
        """Part of the CDK's interface: parents are read in full each time."""
        return {}

    def get_request_params(self, **_: Any) -> Mapping[str, Any]:
        """Part of the CDK's interface: the retriever makes the requests."""
        return {}

    def get_request_headers(self, **_: Any) -> Mapping[str, Any]:
        """As ``get_request_params``."""
        return {}

    def get_request_body_data(self, **_: Any) -> Mapping[str, Any]:
        """As ``get_request_params``."""
        return {}

    def get_request_body_json(self, **_: Any) -> Mapping[str, Any]:
        """As ``get_request_params``."""
        return {}


def _values_of(parent: AbstractStream) -> Iterator[Values]:
    assert isinstance(parent, DefaultStream)  # what the CDK makes of a DeclarativeStream
    for partition in parent.generate_partitions():
        for record in partition.read():
            yield dict(record.data)
