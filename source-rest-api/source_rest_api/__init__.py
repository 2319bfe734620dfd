"""Airbyte source for any JSON REST API, configured by a form.

``SourceRestApi`` is found here by the CDK's tools. It is imported on demand: ``spec`` must not wait for the CDK.
"""

from typing import Any

__all__ = ["SourceRestApi"]


def __getattr__(name: str) -> Any:
    if name == "SourceRestApi":
        from source_rest_api.source import SourceRestApi

        return SourceRestApi
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
