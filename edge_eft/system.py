"""Facts about this machine and installation, and how a size is shown to people.

It imports nothing of ours, so that every module may ask it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


def state_dir() -> Path:
    """Return where the history is kept: $EDGE_EFT_HOME, else the platform's place for state.

    Raises OSError if there is none: it is handled as an unwritable one is.
    """
    return _place("EDGE_EFT_HOME", "state", "edge-eft")


def config_file() -> Path:
    """Return where the user's own defaults are written: config.toml in $EDGE_EFT_HOME, else in the
    platform's place for configuration.

    Raises OSError if there is none: it is handled as a missing one is.
    """
    return _place("EDGE_EFT_HOME", "config", "edge-eft") / "config.toml"


def recipe_directory() -> Path:
    """Return where the user's own recipes are: $EDGE_EFT_HOME/recipes, else the place for data.

    Raises OSError if there is none: it is handled as an unwritable one is.
    """
    return _place("EDGE_EFT_HOME", "data", "edge-eft") / "recipes"


def cache_directory() -> Path:
    """Return where fetched things are kept: $EDGE_EFT_CACHE, else the user's cache directory.

    Raises OSError if there is none: it is handled as an unwritable one is.
    """
    return _place("EDGE_EFT_CACHE", "cache", "edge_eft")


def _place(variable: str, kind: str, name: str) -> Path:
    try:
        if not (place := os.environ.get(variable)):
            import platformdirs  # not at the top: --help does without it

            place = getattr(platformdirs, f"user_{kind}_dir")(name, False)
        # Without a home, some versions of platformdirs raise, and others leave ~ as it is.
        return at_home(place)
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "no home directory is known") from None


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading ~ or ~user as that home directory; ./~ is a name.

    Raises FileNotFoundError if there is no such home.
    """
    given = os.fspath(path)
    expanded = os.path.expanduser(given)
    if given.startswith("~") and expanded.startswith("~"):
        raise FileNotFoundError(errno.ENOENT, f"no home directory is known for {given!r}")
    return Path(expanded)


def container_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[int | None, float | None]:
    """Return the bytes of memory and the CPUs that a container leaves this process.

    Linux' control groups, version 2: the limit of each group counts, and of those around it. None
    where nothing limits it, or the system has no such thing.
    """
    memory: list[int] = []
    cpus: list[float] = []
    for folder in _control_groups(root, own):
        with contextlib.suppress(OSError, ValueError):  # "max", or not in this group
            memory.append(int((folder / "memory.max").read_text()))
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            cpus.append(int(quota) / int(period))
    return min(memory, default=None), min(cpus, default=None)


class Memory(NamedTuple):
    """The memory that this process may have, in bytes: in all, and what of it is to be had now."""

    total: int
    available: int


def memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Memory:
    """Return the machine's memory, or the part of it that a container leaves; see there."""
    import psutil  # not at the top: most of a command's --help would wait for it

    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available)]
    for folder in _control_groups(root, own):
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            found.append(Memory(limit, max(limit - _used(folder), 0)))
    return Memory(*map(min, zip(*found, strict=True)))


def _used(group: Path) -> int:
    """Return the bytes of a control group that are not pages of files, which it gives back."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        used = int((group / "memory.current").read_text())
        stated = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        parts = {name: int(n_bytes) for name, n_bytes in stated}
        return used - parts["file"] + parts["shmem"]
    return 0


def _control_groups(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group, and of those around it."""
    with contextlib.suppress(OSError):
        path = own.read_text().strip().rpartition("::")[2].strip("/")
        group = root / path
        yield from (group, *group.parents) if path else (root,)


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
    """Return a size of memory in MiB, such as "1,234.5"; unit and width are the caller's."""
    return f"{n_bytes / 2**20:,.{digits}f}"


def byte_size(n_bytes: int) -> str:
    """Return the size of a file or disk as the hub and shops have it: "5.0 GB" is 5·10⁹ bytes."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if n_bytes >= scale * 0.9995:
            size = n_bytes / scale
            return f"{size:,.0f} {unit}" if size >= 99.95 else f"{size:.1f} {unit}"
    return f"{-(-n_bytes // 1000)} kB"
