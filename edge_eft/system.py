"""Facts about this machine and installation, and how a size is shown to people.

It imports nothing of ours, so that every module may ask it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Return where the history is kept: $EDGE_EFT_HOME, else the platform's place for state.

    Raises OSError if there is none: it is handled as an unwritable one is.
    """
    place = os.environ.get("EDGE_EFT_HOME") or platformdirs.user_state_dir("edge-eft", False)
    return _at_home(place, "EDGE_EFT_HOME")


def cache_directory() -> Path:
    """Return where fetched things are kept: $EDGE_EFT_CACHE, else the user's cache directory.

    Raises OSError if there is none: it is handled as an unwritable one is.
    """
    place = os.environ.get("EDGE_EFT_CACHE") or platformdirs.user_cache_dir("edge_eft", False)
    return _at_home(place, "EDGE_EFT_CACHE")


def _at_home(place: str, variable: str) -> Path:
    """Return `place` with ~ expanded; without a home, platformdirs leaves it, as if a directory."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise FileNotFoundError(
            errno.ENOENT, f"no home directory is known; set HOME or {variable}"
        ) from None


def installed_version() -> str:
    """Return the version of llama-cpp-python that is installed."""
    from importlib import metadata  # not at the top: it takes longer than the rest together

    return metadata.version("llama-cpp-python")


def versions(*packages: str) -> str:
    """Return `name version` of the packages that are installed, for the record."""
    from importlib import metadata

    known = []
    for package in packages:
        try:
            known.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(known)


def mebibytes(n_bytes: int, digits: int = 0) -> str:
    """Return a size in MiB for people, such as "1,234.5"; unit and width are the caller's."""
    return f"{n_bytes / 2**20:,.{digits}f}"
