"""What `python -m build` made: is everything in it that an installation needs?

    python tools/check_dist.py dist [--tag v0.2.0]

The wheel must hold all of edge_eft and of models/, which is package data there, and the sdist all
that builds and tests it. With --tag they must be of that version. Standard library alone.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SDIST = (
    ".github",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "LICENSE",
    "edge_eft",
    "models",
    "tests",
)


def faults(folder: Path, tag: str | None) -> Iterator[str]:
    """Yield a line for whatever is missing."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if tag is not None and tag != f"v{version}":
        yield f"the tag is {tag}, and pyproject.toml says {version}"
    wheels, sdists = [*folder.glob("*.whl")], [*folder.glob("*.tar.gz")]
    if [len(wheels), len(sdists)] != [1, 1]:
        yield f"{folder} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each"
        return
    with zipfile.ZipFile(wheels[0]) as wheel:
        held = set(wheel.namelist())
    wanted = {name: name for name in _files("edge_eft")}
    wanted |= {name: f"edge_eft/{name}" for name in _files("models")}
    yield from (f"{wheels[0].name} lacks {name}" for name in wanted.values() if name not in held)
    top = sdists[0].name.removesuffix(".tar.gz")
    with tarfile.open(sdists[0]) as sdist:
        held = set(sdist.getnames())
    expected = [name for each in SDIST for name in _files(each)]
    yield from (f"{sdists[0].name} lacks {n}" for n in expected if f"{top}/{n}" not in held)


def _files(name: str) -> Iterator[str]:
    """Yield the files of the tree that are meant to be shipped, relative to its root."""
    path = ROOT / name
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(ROOT).as_posix()


def main() -> None:
    """Exit with status 1 and the lines if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tag")
    given = parser.parse_args()
    sys.exit("\n".join(faults(given.folder, given.tag)) or None)


if __name__ == "__main__":
    main()
