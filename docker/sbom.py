"""The bill of materials of an environment, as CycloneDX JSON: made in the image's build stage, from what is installed.

    python sbom.py NAME > sbom.cdx.json

Only the standard library, so that the image holds nothing for it. It covers the connector's folder; what the base image
brings is the base image's to say.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def bill(connector: str) -> dict[str, Any]:
    """Every installed package with version, licence and purl; the connector is what they are components of."""
    found = {item.name.lower(): component(item) for item in distributions()}
    subject = found.pop(connector)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**subject, "type": "application"}},
        "components": [found[name] for name in sorted(found)],
    }


def component(item: Distribution) -> dict[str, Any]:
    name, version = item.name, item.version
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"name": licence(item)}}],
    }


def licence(item: Distribution) -> str:
    """The licence as the package states it: the expression, the field, or the classifiers, in this order."""
    said = item.metadata.get("License-Expression") or item.metadata.get("License") or ""
    if said and "\n" not in said and len(said) < 100:  # some put the whole text there
        return str(said)
    classifiers = [each for each in item.metadata.get_all("Classifier") or () if each.startswith("License ::")]
    return "; ".join(each.rpartition(" :: ")[2] for each in classifiers) or "not stated"


if __name__ == "__main__":
    json.dump(bill(sys.argv[1]), sys.stdout, indent=1)
