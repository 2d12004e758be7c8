"""Where other programs keep GGUF models on this machine.

The cache of the Hugging Face hub, LM Studio's, Ollama's, llama.cpp's, Jan's and GPT4All's folders,
where variables and settings say or by default. What is in them, `stores` finds out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import HubError, RecipeError
from ..files.hub_cache import cache_directory
from ..files.plain_text import read_regular, utf8
from ..files.recipe import absolute

_MAX_SETTINGS = 1 << 20  # bytes
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # in no path that a recipe can name


@dataclass(frozen=True)
class Place:
    """A folder that is searched: whose it is ("Ollama", "folder" …), and whether it is there."""

    owner: str
    path: Path
    there: bool


def store_places(environment: Mapping[str, str] | None = None) -> Iterator[Place]:
    """Yield where other programs keep their models, whether or not these folders are there."""
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or env.get("USERPROFILE") or os.path.expanduser("~"))
    caches = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    if sys.platform == "darwin":
        data, programs = home / "Library" / "Application Support", home / "Library" / "Caches"
    elif sys.platform == "win32":
        data = programs = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        programs = caches
    candidates = [
        *(("Hugging Face", each) for each in _hub(env)),
        *(("LM Studio", each) for each in _lm_studio(home)),
        *(("Ollama", each) for each in _ollama(env, home)),
        ("llama.cpp", Path(env.get("LLAMA_CACHE") or programs / "llama.cpp")),
        ("Jan", home / "jan" / "models"),
        ("Jan", data / "Jan" / "data" / "llamacpp" / "models"),
        ("GPT4All", data / "nomic.ai" / "GPT4All"),
    ]
    seen = set()
    for owner, path in candidates:
        try:
            place = absolute(path)
            key = os.path.realpath(place)
        except (RecipeError, OSError, ValueError):  # a variable that names no path
            continue
        if key not in seen:
            seen.add(key)
            yield Place(owner, place, _is_directory(place))


def _hub(env: Mapping[str, str]) -> Iterator[Path]:
    with contextlib.suppress(HubError):  # without a home there is none
        yield cache_directory(env)


def _ollama(env: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Yield Ollama's folder; without a variable also that of its service on Linux."""
    yield Path(env.get("OLLAMA_MODELS") or home / ".ollama" / "models")
    if not env.get("OLLAMA_MODELS") and sys.platform == "linux":
        yield Path("/usr/share/ollama/.ollama/models")


def _lm_studio(home: Path) -> Iterator[Path]:
    """Yield LM Studio's folders: where its settings say, and where it keeps models by default."""
    for root in (home / ".lmstudio", home / ".cache" / "lm-studio"):
        try:
            settings = json.loads(utf8(read_regular(root / "settings.json", _MAX_SETTINGS)))
            folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
        except (OSError, ValueError, RecursionError):
            folder = None
        if isinstance(folder, str) and os.path.isabs(folder) and not CONTROL.search(folder):
            named = Path(os.path.normpath(folder))
            if named != Path(named.anchor):  # a whole disk is nobody's folder of models
                yield named
        yield root / "models"


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above it may not be entered
        return False
