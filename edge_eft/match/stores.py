"""Which GGUF files are in other programs' stores and in folders that a user names.

Nothing is written, no model is opened, and nothing but file names and Ollama's manifests is read.
Manifests and links come from strangers, so that both only ever lead to files inside the places that
are searched. What a model is, `candidates` asks its file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RecipeError
from ..files.gguf_split import first_part, part_paths
from ..files.plain_text import read_regular, reason, utf8
from ..files.recipe import absolute
from .store_places import CONTROL, Place, store_places

MAX_ENTRIES = 200_000  # of all folders together: a home directory, not a file system
_MAX_DEPTH = 24
_MAX_MANIFEST = 1 << 20  # bytes; real ones have a few hundred
_MAX_LAYERS = 64
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."
_REPOSITORY = re.compile(r"models--(.+?)--(.+)")
# Folders with thousands of files, none of which is a model.
_PASSED_OVER = {".git", "node_modules", "__pycache__", "site-packages", ".venv"}


@dataclass(frozen=True)
class Found:
    """A file that may be a model.

    Attributes:
        path: as a recipe names it; of a split model the first part.
        owner: whose place it is in.
        name: what that program calls the model: "owner/repo", "qwen3:0.6b", a folder's name.
        adapter_on: of an adapter that a manifest puts on a model, that model's file.
    """

    path: Path
    owner: str
    name: str
    adapter_on: Path | None = None


@dataclass
class Findings:
    """What a search brought: the places, the files, and a line for what was passed over and why."""

    places: list[Place]
    files: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def search(
    directories: Iterable[str | os.PathLike[str]] = (),
    *,
    environment: Mapping[str, str] | None = None,
) -> Findings:
    """Return the GGUF files in the given folders and in the stores of other programs.

    A file that several names lead to is returned once, by the first.

    Args:
        directories: folders of the user's; whatever is below them.
        environment: in place of the process's.

    Raises RecipeError if a given folder is none.
    """
    given = [Place("folder", _directory(each), True) for each in directories]
    found = Findings([*store_places(environment), *given])  # a store knows its models' names
    found.notes += [note for place in found.places if not place.there and (note := _closed(place))]
    _Search(found).run()
    return found


def _closed(place: Place) -> str:
    """Return a note if a place is there and belongs to somebody else, such as Ollama's service."""
    try:
        os.stat(place.path)
    except PermissionError as error:
        return (
            f"{place.owner}: {place.path}: cannot be looked into ({reason(error)}); it belongs to "
            "another user, whose group you can join"
        )
    except (OSError, ValueError):
        pass
    return ""


def _directory(path: str | os.PathLike[str]) -> Path:
    place = absolute(path)
    if not place.is_dir():
        what = "is a file; name the folder it is in" if place.exists() else "is not a folder here"
        raise RecipeError(f"{place}: {what}" + ("" if place.exists() else "; check the path"))
    return place


class _Search:
    """One search; fills `found.files` and `found.notes`."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        there = [place for place in found.places if place.there]
        self._roots = [Path(os.path.realpath(place.path)) for place in there]
        self._places = there
        self._entries = 0
        self._full = False
        self._seen: set[str] = set()
        self._entered: set[str] = set()

    def run(self) -> None:
        for place in self._places:
            self._walk(place)

    def _note(self, line: str) -> None:
        self._found.notes.append(line)

    def _walk(self, place: Place) -> None:
        """Look through a folder and all below it; links to folders are not followed."""
        todo = [(place.path, 0)]
        while todo and not self._full:
            folder, depth = todo.pop()
            real = os.path.realpath(folder)
            if real in self._entered:
                continue
            self._entered.add(real)
            entries = self._list(folder)
            if all(self._ollama_folder(entries.get(name)) for name in ("manifests", "blobs")):
                self._ollama(folder)
                entries = {name: entries[name] for name in entries.keys() - {"manifests", "blobs"}}
            below = [self._entry(place, folder / name, entries[name]) for name in sorted(entries)]
            if depth < _MAX_DEPTH:
                todo += [(path, depth + 1) for path in reversed(below) if path]

    def _entry(self, place: Place, path: Path, entry: os.DirEntry[str]) -> Path | None:
        """Take a file that is named like a model. Returns the path of a folder to look into."""
        try:
            if entry.is_dir(follow_symlinks=False):
                is_ours = path.name not in _PASSED_OVER and not _hub_blobs(path)
                return path if is_ours else None
            if entry.is_symlink() and path.is_dir():
                if not self._inside(path):
                    self._note(f"{path}: a link to a folder elsewhere is not followed; name it too")
                return None
        except OSError as error:
            self._note(f"{path}: cannot be read ({reason(error)})")
            return None
        if path.suffix.lower() == ".gguf":
            self._take(Found(path, place.owner, _name(path)))
        return None

    def _list(self, folder: Path) -> dict[str, os.DirEntry[str]]:
        entries = {}
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    self._entries += 1
                    if self._entries > MAX_ENTRIES:
                        if not self._full:
                            self._note(
                                f"{folder}: more than {MAX_ENTRIES:,} files were looked at, the "
                                "rest was not; name narrower folders"
                            )
                        self._full = True
                        break
                    entries[entry.name] = entry
        except OSError as error:
            self._note(f"{folder}: cannot be looked into ({reason(error)})")
        return entries

    def _take(self, file: Found) -> None:
        if first_part(file.path) not in ("", file.path.name):
            return  # a later part comes with the first
        if CONTROL.search(str(file.path)):
            self._note(f"{file.path}: has control characters in its name; rename it")
            return
        for part in part_paths(file.path):
            if part != file.path and not os.path.lexists(part):
                break  # the check of the header says what is missing
            if not self._regular_inside(part):
                return
        key = os.path.realpath(file.path)
        if key not in self._seen:
            self._seen.add(key)
            self._found.files.append(file)

    def _regular_inside(self, path: Path) -> bool:
        """Return whether there is an ordinary file in a place that is searched; say if not."""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            self._note(f"{path}: cannot be read ({reason(error)}); an unfinished download?")
            return False
        if not stat.S_ISREG(mode):
            self._note(f"{path}: is not a regular file")
            return False
        if not self._inside(path):
            self._note(f"{path}: a link out of the folders that are searched; name its folder too")
            return False
        return True

    def _inside(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(root) for root in self._roots)

    def _ollama_folder(self, entry: os.DirEntry[str] | None) -> bool:
        try:
            return entry is not None and entry.is_dir() and self._inside(Path(entry.path))
        except OSError:
            return False

    def _ollama(self, store: Path) -> None:
        """Take the models that the manifests of an Ollama store name."""
        root = Path(os.path.realpath(store))
        named: list[Found] = []
        manifests = Path(os.path.realpath(store / "manifests"))
        for path in self._manifests(manifests):
            real = Path(os.path.realpath(path))
            name = _ollama_name(path.relative_to(manifests).parts)
            if not (real.is_relative_to(root) or real.is_relative_to(manifests)):
                self._note(f"{path}: a link out of Ollama's store")
                continue
            try:
                layers = _layers(read_regular(path, _MAX_MANIFEST))
            except (OSError, ValueError, RecursionError) as error:
                self._note(f"{path}: is no manifest of Ollama's ({reason(error)})")
                continue
            named += self._layered(name, store, layers)
        # A model's own name before that of an adapter on it.
        for file in sorted(named, key=lambda file: not file.name):
            self._take(file)

    def _manifests(self, folder: Path) -> Iterator[Path]:
        """Yield REGISTRY/NAMESPACE/MODEL/TAG below a folder of manifests."""
        level = [folder]
        for _ in range(4):
            level = [
                folder / name
                for folder in level
                if not folder.is_symlink() and folder.is_dir()
                for name in sorted(self._list(folder))
            ]
        yield from level

    def _layered(
        self, name: str, store: Path, layers: list[tuple[str, str, int]]
    ) -> Iterator[Found]:
        models: list[Path] = []
        adapters: list[Path] = []
        for kind, digest, size in layers:
            match = _DIGEST.fullmatch(digest)
            if kind not in ("model", "adapter"):
                continue  # templates, licences and projectors are of no use here
            if not match:
                self._note(f"Ollama's {name}: a digest that is none ({digest!r:.80})")
                continue
            blob = store / "blobs" / f"sha256-{match[1]}"
            if not self._blob(name, store, blob, size):
                continue
            (models if kind == "model" else adapters).append(blob)
        for adapter in adapters:
            yield Found(adapter, "Ollama", name, models[0] if models else None)
        for model in models:
            # With an adapter the manifest's name is that of the two together.
            yield Found(model, "Ollama", "" if adapters else name)

    def _blob(self, name: str, store: Path, blob: Path, size: int) -> bool:
        blobs = Path(os.path.realpath(store / "blobs"))
        if not Path(os.path.realpath(blob)).is_relative_to(blobs):
            self._note(f"Ollama's {name}: {blob.name[:19]}… is a link out of its blobs")
        elif not blob.is_file():
            self._note(f"Ollama's {name}: {blob.name[:19]}… is not there; ollama pull {name}")
        elif size >= 0 and blob.stat().st_size != size:
            self._note(f"Ollama's {name}: {blob.name[:19]}… has another size than stated")
        else:
            return True
        return False


def _layers(data: bytes) -> list[tuple[str, str, int]]:
    """Return kind, digest and size of a manifest's layers. Raises ValueError if it is none."""
    manifest = json.loads(utf8(data))
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS:
        raise ValueError("it has no list of layers")
    found = []
    for layer in layers:
        if not isinstance(layer, dict):
            raise ValueError("a layer is not an object")
        kind, digest, size = (layer.get(key) for key in ("mediaType", "digest", "size"))
        if not isinstance(kind, str) or not isinstance(digest, str):
            raise ValueError("a layer lacks its kind or digest")
        size = size if isinstance(size, int) and not isinstance(size, bool) else -1
        found.append((kind.removeprefix(_LAYER), digest, size))
    return found


def _ollama_name(parts: tuple[str, ...]) -> str:
    """Return what one types after `ollama run`."""
    registry, namespace, model, tag = parts
    short = registry == "registry.ollama.ai"
    where = [] if short and namespace == "library" else [namespace]
    return "/".join([*([] if short else [registry]), *where, f"{model}:{tag}"])


def _name(path: Path) -> str:
    """Return what a file's folder calls the model: a hub repository, or the folder's name."""
    for part in reversed(path.parts[:-1]):
        if match := _REPOSITORY.fullmatch(part):
            return f"{match[1]}/{match[2]}"
    return path.parent.name


def _hub_blobs(path: Path) -> bool:
    """Return whether this folder has a hub repository's contents, which its snapshots name."""
    return path.name in ("blobs", "refs") and bool(_REPOSITORY.fullmatch(path.parent.name))
