"""What a stream looks like, from a few of its records; and whether it can be read at all.

Samples are read through the streams that a sync reads, and so the schema is that of the records that will come.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Thread
from typing import Any, TypeVar

from airbyte_cdk.sources.streams.concurrent.abstract_stream import AbstractStream
from airbyte_cdk.sources.streams.concurrent.default_stream import DefaultStream
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.errors import transient_error
from source_rest_api.form import Stream
from source_rest_api.page import page_of
from source_rest_api.schema_inference import infer_schema

CHECK_SECONDS = 30.0
DISCOVER_SECONDS = 60.0
MOST_PARTITIONS = 5

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sample:
    """Records of one stream, or why there are none."""

    records: Sequence[Mapping[str, Any]] = ()
    problem: str | None = None


@dataclass
class Sampler:
    """Reads samples until its time is up."""

    until: float
    is_over: Event = field(default_factory=Event)

    def records(self, stream: AbstractStream, most: int) -> Sequence[Mapping[str, Any]]:
        """At most ``most`` records of at most five partitions. Raises what reading raises."""
        return list(islice(self.iterate(stream), most))

    def iterate(self, stream: AbstractStream) -> Iterator[Mapping[str, Any]]:
        """The same, one by one."""
        assert isinstance(stream, DefaultStream)  # what the CDK makes of a DeclarativeStream
        for partition in islice(stream.generate_partitions(), MOST_PARTITIONS):
            for item in partition.read():
                if self.is_over.is_set() or time.monotonic() > self.until:
                    return
                page = page_of(item.data)
                if page is not None:
                    yield from (record["data"] for record in page.records())
                else:  # a manifest's stream
                    yield item.data


def first_page(stream: AbstractStream) -> int:
    """Read the first page of a stream's first partition; how many records were seen, 0 or 1. Raises as reading does."""
    return len(Sampler(time.monotonic() + CHECK_SECONDS).records(stream, 1))


def within(seconds: float, work: Callable[[], Found], *, look_at: str = "base_url") -> Found:
    """The result of ``work``, or a transient error when its time is up (it then goes on as a daemon).

    Args:
        seconds: the time.
        work: what is done.
        look_at: the setting that may be wrong if nothing answers.

    Raises:
        AirbyteTracedException: of ``work``, or for the time.
    """
    results: list[Found] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as problem:  # noqa: BLE001  # it is raised where the result is wanted
            problems.append(problem)

    worker = Thread(target=run, daemon=True)
    worker.start()
    worker.join(seconds)
    if problems:
        raise problems[0]
    if not results:
        raise transient_error(f"The API did not answer within {seconds:.0f} seconds. Check {look_at}, or try later.")
    return results[0]


def sample_all(streams: Iterable[tuple[AbstractStream, int]], workers: int) -> list[Sample]:
    """One sample per stream, of at most so many records, read in parallel, within a minute."""
    pairs = list(streams)
    sampler = Sampler(time.monotonic() + DISCOVER_SECONDS)
    pool = ThreadPoolExecutor(max_workers=workers)
    futures = [pool.submit(_sample, sampler, stream, most) for stream, most in pairs]
    samples = []
    for future in futures:
        try:
            samples.append(future.result(timeout=max(0.1, sampler.until + 5 - time.monotonic())))
        except FutureTimeout:
            samples.append(Sample(problem=f"no answer within {DISCOVER_SECONDS:.0f} seconds"))
    sampler.is_over.set()
    pool.shutdown(wait=False, cancel_futures=True)
    return samples


def schema_of(stream: Stream, sample: Sample) -> dict[str, Any]:
    """The JSON Schema of a stream; its key and cursor are always in it, and the form's fields win."""
    always = [*stream.key_paths, *([list(stream.cursor.path)] if stream.cursor else [])]
    schema = infer_schema(sample.records, always=always)
    declared = json.loads(stream.schema)["properties"] if stream.schema else {}
    return {**schema, "properties": {**schema.get("properties", {}), **declared}} if declared else schema


def _sample(sampler: Sampler, stream: AbstractStream, most: int) -> Sample:
    try:
        return Sample(sampler.records(stream, most))
    except AirbyteTracedException as problem:
        return Sample(problem=problem.message or type(problem).__name__)
