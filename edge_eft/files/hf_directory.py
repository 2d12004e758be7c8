"""What the small files of a Hugging Face or PEFT directory say: its name, template and end tokens.

transformers is followed where llama.cpp's scripts read less than it does: chat templates in files
of their own and in named lists, and end tokens that only generation_config.json names. JSON may
begin with a byte order mark. No weights are looked at.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConversionError
from ..text.formats import is_format
from .hub_file import COMMIT
from .plain_text import decode, read_regular, utf8

MAX_JSON = 100 << 20  # safetensors' own limit for a header


def shown_name(path: Path) -> str:
    """Return what people call a model's directory: of a hub snapshot, the repository's name."""
    path = Path(os.path.abspath(path))  # links not followed: those of a hub cache lead to hashes
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and COMMIT.fullmatch(path.name):
        return repository.rpartition("--")[2] or path.name
    return path.name


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ConversionError: the file cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ConversionError(f"{path} is too large to be what its name says")
        content = json.loads(utf8(read_regular(path, MAX_JSON)))
    except (OSError, ValueError, RecursionError) as error:
        raise ConversionError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConversionError(f"{path} does not hold a JSON object")
    return content


def json_if_there(path: Path) -> dict[str, Any]:
    """Return what `read_json` does, or {} if there is no such file."""
    return read_json(path) if path.is_file() else {}


def without_marks(directory: Path, copy: Path) -> Path:
    """Return `directory`, or `copy`, made of links to its files, if JSON there begins with a mark.

    llama.cpp's scripts and transformers refuse a byte order mark; `copy` has such files without it.
    """
    marked = [path for path in directory.glob("*.json") if _begins_with_mark(path)]
    if not marked:
        return directory
    copy.mkdir()
    for path in directory.iterdir():
        if path in marked:
            (copy / path.name).write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        else:
            (copy / path.name).symlink_to(path.resolve())
    return copy


def _begins_with_mark(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def chat_template(directory: Path) -> str | None:
    """Return the directory's chat template, None if it has none; the one called default of many.

    Raises:
        ConversionError: it cannot be read, is not a template, or is a list without a default.
    """
    found: Any = None
    if beside := [*directory.glob("chat_template.jinja")] or [
        *directory.glob("additional_chat_templates/*.jinja")
    ]:
        found = [{"name": path.stem, "template": _jinja(path)} for path in beside]
    if found is None:
        found = json_if_there(directory / "tokenizer_config.json").get("chat_template")
    if found is None:
        found = json_if_there(directory / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        found = _default(directory, _named(directory, found))
    if found is None:
        return None
    if not isinstance(found, str) or not is_format(found):
        raise ConversionError(
            f"{directory} has a chat template that is none, {found!r:.40}: correct it, or pass "
            "--format tuned=FORMAT"
        )
    return found


def _jinja(path: Path) -> str:
    try:
        return decode(read_regular(path, MAX_JSON))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} cannot be read as a template: {error}") from None


def _named(directory: Path, entries: list[Any]) -> dict[str, Any]:
    try:
        return {str(entry["name"]): entry["template"] for entry in entries}
    except (TypeError, KeyError):
        raise ConversionError(
            f"{directory} has a list of chat templates that are not named: correct "
            "tokenizer_config.json, or pass --format tuned=FORMAT"
        ) from None


def _default(directory: Path, templates: dict[str, Any]) -> Any:
    if len(templates) == 1:
        return next(iter(templates.values()))
    if templates and "default" not in templates:
        raise ConversionError(
            f"{directory} has chat templates called {', '.join(sorted(templates))} and none called "
            "default: pass --format tuned=FORMAT"
        )
    return templates.get("default")


def end_tokens(*directories: Path) -> list[int | str]:
    """Return the tokens that end a reply, ids and texts, as the configuration files name them.

    Args:
        directories: of each file the first directory that has it counts: the adapter's, then that
            of its model.
    """
    found: list[Any] = []
    for name, key in (
        ("generation_config.json", "eos_token_id"),
        ("config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
    ):
        path = next((d / name for d in directories if (d / name).is_file()), None)
        content = read_json(path) if path else {}
        value = content.get(key)
        if value is None and isinstance(content.get("text_config"), dict):
            value = content["text_config"].get(key)  # of a model with several parts
        if isinstance(value, dict):
            value = value.get("content")
        found += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(token for token in found if type(token) in (int, str)))


def added_tokens(directory: Path) -> set[str]:
    """Return the texts of the tokens that the directory's tokenizer adds to its vocabulary."""
    return _added_tokens(directory, json_if_there(directory / "tokenizer.json"))


def _added_tokens(directory: Path, tokenizer: dict[str, Any]) -> set[str]:
    entries: list[Any] = []
    listed = tokenizer.get("added_tokens")
    entries += listed if isinstance(listed, list) else []
    decoded = json_if_there(directory / "tokenizer_config.json").get("added_tokens_decoder")
    entries += decoded.values() if isinstance(decoded, dict) else []
    texts = {entry.get("content") for entry in entries if isinstance(entry, dict)}
    texts |= json_if_there(directory / "added_tokens.json").keys()
    return {text for text in texts if isinstance(text, str)}


def known_tokens(directory: Path) -> set[str]:
    """Return the texts of all tokens that JSON files of the directory name."""
    tokenizer = json_if_there(directory / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    known = set(vocabulary) if isinstance(vocabulary, dict) else set()
    known |= json_if_there(directory / "vocab.json").keys()
    return known | _added_tokens(directory, tokenizer)


def first_of(texts: Iterable[str], n: int = 3) -> str:
    """Return the first few of `texts`, in order, for a message."""
    ordered = sorted(texts)
    return ", ".join(map(repr, ordered[:n])) + (" …" if len(ordered) > n else "")
