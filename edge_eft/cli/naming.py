"""What people type where a recipe is named: a recipe, a prompt for the default one, or a mistake.

A mistake is told what it looks like, and the command that was probably meant. Nothing is loaded.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from .terminal import counted

DEFAULT_RECIPE = "atlas"

_PLAIN = re.compile(r"[A-Za-z0-9_.:/\\~@+=-]+")  # what names, paths and addresses are made of
_ENDS = (":", "?", "!", ".", ",", ";")  # of a prompt in one word: Summarise:
_ANSWERING = ("run", "compare", "inspect")  # commands that a prompt is given to
_FILES = (".toml", ".gguf", ".jsonl", ".safetensors")


def looks_like_prompt(word: str, recipes: Mapping[str, Path]) -> bool:
    """Return whether a word in a recipe's place can only be a prompt: a sentence, say.

    A single plain word is a name, known or not: `mistral` is not to be answered by atlas. One that
    ends as sentences do is not.
    """
    from ..files.recipe_names import named

    if named(word.replace(":", "-"), recipes) or os.path.lexists(word):
        return False
    if word.lower().endswith(_FILES):
        return False
    ends = word.endswith(_ENDS) and not re.search(r"[/\\]|^[~.]", word)
    return ends or not _PLAIN.fullmatch(word)


def mistaken(word: str, rest: Sequence[str], command: str) -> str | None:
    """Return what to say of what is not a recipe by its looks; None if it may be one.

    Args:
        word: what stands in a recipe's place.
        rest: the words after it.
        command: the command's name.
    """
    prompt = "".join(f" {shlex.quote(each)}" for each in rest)
    here = f"edge-eft {command}"
    shown = shlex.quote(word)
    if os.path.isdir(word):
        return _directory(Path(word), shown, f"{here} RECIPE --lora {shown}{prompt}")
    if word.lower().endswith(".gguf") or _is_gguf(word):
        if not os.path.exists(word):
            return (
                f"{word!r:.120}: no such file; and in place of a recipe three are named: {here} "
                f"--base FILE --tuned FILE --reference FILE{prompt}"
            )
        files = f"--base {shown} --tuned FILE --reference FILE"
        return (
            f"{word!r:.120} is one GGUF file, and a recipe names three: {here} {files}{prompt}, or "
            f"edge-eft new NAME {files} to make a recipe"
        )
    if word.lower().endswith(".toml") and not os.path.exists(word):
        return _no_toml(word, f"{here} ", prompt)
    if word.lower().endswith(".jsonl"):
        return f"{word!r:.120} is not a recipe; for a file of prompts: edge-eft run --input {shown}"
    if word.lower().endswith(".safetensors"):
        folder = shlex.quote(os.path.dirname(word) or ".")
        return (
            f"{word!r:.120} is a model of Hugging Face, not a recipe; {_convert(folder)} makes one "
            "of the directory that it is in"
        )
    return _repository(word)


def _no_toml(word: str, here: str, prompt: str) -> str | None:
    """Return what to say of a TOML file that is not there, if a recipe has its name."""
    from ..files.recipe_names import list_recipes

    name = os.path.basename(word)[: -len(".toml")]
    if name not in list_recipes():
        return None
    return f"{word!r:.120}: no such file; the recipe {name} needs no ending: {here}{name}{prompt}"


def with_name_mended(told: str, word: str, rest: Sequence[str], command: str, default: str) -> str:
    """Return `told`, which says that no recipe is called `word`, with what to type instead.

    Args:
        rest: the words after it, a prompt among them or not.
        default: the recipe that answers a prompt of one word.
    """
    from ..files.recipe_names import embedded_recipes, near, own_recipes

    here = f"edge-eft {command}"
    nearest = near(word, [*own_recipes(), *embedded_recipes()], 1)
    prompt = "".join(f" {shlex.quote(each)}" for each in rest)
    if nearest and len(prompt) < 200 and f"near: {nearest[0]}" in told:
        told = f"{told}; {here} {nearest[0]}{prompt}"
    if set(rest) <= {"-"} and command in _ANSWERING and not word.lower().endswith(_FILES):
        told += f"; if it is a prompt: {here} {shlex.quote(default)} {shlex.quote(word)}{prompt}"
    return told


def _convert(directory: str) -> str:
    return f"edge-eft convert --tuned {directory} --reference DIR --out DIR"


def _directory(path: Path, shown: str, with_lora: str) -> str:
    """Return what a directory is, and what it is for."""
    if (path / "adapter_config.json").is_file():
        return f"{str(path)!r:.120} is a LoRA adapter, not a recipe: {with_lora}"
    if (path / "config.json").is_file():
        return (
            f"{str(path)!r:.120} is a model of Hugging Face, not a recipe: {_convert(shown)} makes "
            "one of it"
        )
    n = sum(1 for _ in path.glob("*.gguf"))
    holds = f" with {counted(n, 'GGUF file')}" if n else ""
    return (
        f"{str(path)!r:.120} is a directory{holds}, not a recipe: edge-eft match {shown} looks for "
        "models in it that make one"
    )


def _is_gguf(word: str) -> bool:
    from ..files.gguf_header import is_gguf

    with contextlib.suppress(OSError, ValueError):
        return is_gguf(word)
    return False


def _repository(word: str) -> str | None:
    if "://" in word and "huggingface.co/" not in word:
        return (
            f"{word!r:.120} is an address, not a recipe; edge-eft pull gets models from "
            "repositories of Hugging Face"
        )
    if "/" not in word or os.path.lexists(word) or word.startswith((".", "/", "~")):
        return None
    from .pull_wish import no_recipe

    return no_recipe(word)
