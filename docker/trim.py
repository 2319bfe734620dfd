"""Takes out of an environment what no command of a connector opens: run once, in the image's build stage.

Tests of packages, headers, the installer, and botocore's descriptions of services other than those that are called.
What may be needed stays: the image tests run every command afterwards.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SERVICES = {
    "s3",
    "glue",
    "sts",
    "sso",
    "sso-oidc",
    "signin",
}  # sso and signin: profiles of the default credential chain
HEAVY = (
    "*/tests",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_flight.*",
    "numpy/*/tests",
    "numpy/_core/include",
    "pandas/tests",
    "pip",
    "setuptools",
)


def trim(packages: Path) -> int:
    """Remove; the bytes that went."""
    doomed = [path for pattern in HEAVY for path in packages.glob(pattern)]
    described = packages / "botocore" / "data"
    if described.is_dir():
        doomed += [path for path in described.iterdir() if path.is_dir() and path.name not in SERVICES]
    return sum(_remove(path) for path in doomed if path.exists())


def _remove(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size
    path.unlink()
    return size


if __name__ == "__main__":
    (site,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    print(f"trimmed {trim(site) / 1e6:.0f} MB", file=sys.stderr)
