"""What a user of PyAirbyte writes: one job, in PyAirbyte's own environment, which knows of ours two commands only.

    python pyairbyte_driver.py JOB      JOB is JSON, made in ``pyairbyte_syncs.py``

The last line that it prints is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import airbyte
from airbyte.caches import DuckDBCache
from airbyte.strategies import WriteStrategy


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    source = airbyte.get_source(
        "source-rest-api", config=job["source_config"], local_executable=Path(job["source"]), streams="*"
    )
    source.check()
    cache = DuckDBCache(db_path=job["cache"], schema_name="main")
    strategy = job.get("strategy")
    print(json.dumps(into_cache(source, cache) if strategy is None else into_lake(source, cache, strategy, job)))


def into_cache(source: Any, cache: Any) -> dict[str, Any]:
    """A plain ``read``; what the cache's table then holds."""
    result = source.read(cache=cache)
    rows = {name: json.loads(found.to_pandas().to_json(orient="records")) for name, found in cache.streams.items()}
    return {"records": result.processed_records, "rows": rows}


def into_lake(source: Any, cache: Any, strategy: str, job: dict[str, Any]) -> dict[str, Any]:
    """Straight into our destination; only the state is kept in a cache."""
    destination = airbyte.get_destination(
        "destination-s3-datalake", config=job["destination_config"], local_executable=Path(job["destination"])
    )
    destination.check()
    result = destination.write(source, cache=False, state_cache=cache, write_strategy=WriteStrategy(strategy))
    return {"records": result.processed_records}


if __name__ == "__main__":
    main()
