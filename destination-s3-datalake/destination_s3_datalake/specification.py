"""Makes ``spec.json`` from the typed configuration, and the JSON Schema of a log entry from its model.

``python -m destination_s3_datalake.specification``. ``spec`` prints the first file, and so answers without importing
anything heavy; the second is for people who read the log. A test compares both with the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from destination_s3_datalake.config import DOCUMENTATION_URL, connection_specification
from destination_s3_datalake.lake.log import json_schema

FILE = Path(__file__).with_name("spec.json")
LOG_ENTRY_FILE = Path(__file__).with_name("log-entry.schema.json")


def specification() -> dict[str, Any]:
    """What the SPEC message holds."""
    return {
        "documentationUrl": DOCUMENTATION_URL,
        "connectionSpecification": connection_specification(),
        "supportsIncremental": True,
        "supportsNormalization": False,
        "supportsDBT": False,
        "supported_destination_sync_modes": ["overwrite", "append", "append_dedup"],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(specification(), indent=2) + "\n", encoding="utf-8")
    LOG_ENTRY_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
