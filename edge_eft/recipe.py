"""Recipes: which models make one emulation, in TOML.

    name = "atlas"                    # default: the file's name
    description = "..."
    license = "..."
    n_ctx = 512                       # default: 4096, or what the models were trained for if less

    [base]                            # may be left out, and given by `with_base`
    file = "atlas/base.gguf"          # relative to the recipe, or absolute
    sha256 = "..."
    prompt = "plain"                  # template, chatml, plain, transcript, or inline Jinja
    source = "..."                    # where the file comes from, for people

    [delta.chat]                      # one table for each delta
    weight = 1.0
    tuned = { file = "atlas/chat.gguf", sha256 = "...", prompt = "template" }
    reference = { file = "atlas/reference.gguf", sha256 = "..." }

    [provenance]                      # free-form, for people: how the files were made

An adapter as the tuned side is written `{ lora = "file.gguf", on = "reference" }`.

This module reads recipes and compares hashes. It opens no model and knows nothing of GGUF.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .checks import did_you_mean
from .errors import ModelFileError, RecipeError
from .template import FORMATS, is_format

VERIFIED_AT_LOAD = 64 << 20  # bytes; hashing this much takes about 0.1 s

_MAX_RECIPE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names are typed in `--mix a=.7,b=.3` and stand in roles such as `tuned:NAME`.
_DELTA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RECIPE_KEYS = ("name", "description", "license", "n_ctx", "base", "delta", "provenance")
_DELTA_KEYS = ("weight", "tuned", "reference")
_FILE_KEYS = ("file", "sha256", "prompt", "source")
_LORA_KEYS = ("lora", "on", "sha256", "prompt", "source")


@dataclass(frozen=True)
class ModelSpec:
    """One model of a recipe.

    `file` and `lora` are absolute; with a `lora`, `file` is the reference's model that it is put
    on, and `sha256` and `source` are the adapter's. `prompt` is None only in a reference whose
    recipe has no base yet.
    """

    file: Path
    sha256: str | None = None
    prompt: str | None = None
    lora: Path | None = None
    source: str | None = None


@dataclass(frozen=True)
class Delta:
    """A tuned model, its reference, and the weight of their difference (finite, 0 or more)."""

    name: str
    weight: float
    tuned: ModelSpec
    reference: ModelSpec


@dataclass(frozen=True)
class Recipe:
    """The models of one emulation. `path` is the TOML file, None for `from_files`."""

    name: str
    description: str
    license: str
    n_ctx: int | None
    base: ModelSpec | None
    deltas: Mapping[str, Delta]
    path: Path | None

    def roles(self) -> dict[str, ModelSpec]:
        """Return the model of each role: `base`, and `tuned:NAME`, `reference:NAME` of each delta.

        Raises RecipeError if the recipe names no base yet.
        """
        if self.base is None:
            raise RecipeError(f"recipe {self.name!r} names no base model; give one: --base FILE")
        roles = {"base": self.base}
        for delta in self.deltas.values():
            # A reference's rows are compared with the base's, so it is asked as the base is.
            reference = delta.reference
            reference = replace(reference, prompt=reference.prompt or self.base.prompt)
            roles |= {f"tuned:{delta.name}": delta.tuned, f"reference:{delta.name}": reference}
        return roles

    def contexts(self) -> list[tuple[tuple[str, ...], ModelSpec]]:
        """Return the contexts that the roles need: the roles that share each, and their model.

        Raises RecipeError if the recipe names no base yet.
        """
        return shared_contexts(self.roles())

    def with_base(self, file: str | os.PathLike[str], *, prompt: str | None = None) -> Recipe:
        """Return this recipe on another base model.

        Args:
            file: the base's GGUF, relative to the working directory.
            prompt: its format; None keeps the recipe's, or "plain" if it names no base.

        Raises RecipeError if `prompt` is not a format.
        """
        if prompt is not None:
            _check_prompt("prompt", prompt)
        elif self.base is not None:
            prompt = self.base.prompt
        return replace(self, base=ModelSpec(_absolute(file), None, prompt or "plain"))


def shared_contexts(roles: Mapping[str, ModelSpec]) -> list[tuple[tuple[str, ...], ModelSpec]]:
    """Return which roles share a context, and the model of each context, the base's first.

    Roles of one side (base, tuned or reference) do if they have the same model, adapter and prompt
    format: they are then told the same and give the same logits.
    """
    shared: dict[tuple[Any, ...], list[str]] = {}
    for role, spec in roles.items():
        paths = [os.path.realpath(path) for path in (spec.file, spec.lora) if path]
        shared.setdefault((role.partition(":")[0], *paths, spec.prompt), []).append(role)
    return [(tuple(names), roles[names[0]]) for names in shared.values()]


def from_files(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    prompt: str = "plain",
) -> Recipe:
    """Return a recipe of three files with one delta, named "tuned", of weight 1.

    Args:
        base, tuned, reference: GGUF files, relative to the working directory.
        prompt: the format of base and reference; the tuned model has its own template.

    Raises RecipeError if `prompt` is not a format.
    """
    _check_prompt("prompt", prompt)
    delta = Delta(
        name="tuned",
        weight=1.0,
        tuned=ModelSpec(_absolute(tuned), prompt="template"),
        reference=ModelSpec(_absolute(reference), prompt=prompt),
    )
    return Recipe(
        name=Path(base).stem,
        description="",
        license="",
        n_ctx=None,
        base=ModelSpec(_absolute(base), prompt=prompt),
        deltas=MappingProxyType({delta.name: delta}),
        path=None,
    )


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_recipes() -> dict[str, Path]:
    """Return the embedded recipes: name → TOML file, by name. Empty if there are none."""
    here = Path(__file__).resolve().parent
    models = here / "models"  # in an installed wheel
    # A wheel's neighbour called `models` belongs to somebody else: only a checkout's is ours.
    if not models.is_dir() and (here.parent / "pyproject.toml").is_file():
        models = here.parent / "models"
    return {path.stem: path for path in sorted(models.glob("*.toml"))}


def load_recipe(path_or_name: str | os.PathLike[str]) -> Recipe:
    """Read a recipe: the path of a TOML file, or the name of an embedded recipe.

    A plain word is a name first, then a path. The model files are not looked at (`verify` does).

    Raises RecipeError, naming the file and the key, if there is no such recipe, or it is not TOML,
    has a key that recipes do not have, lacks one, or holds a value of the wrong kind.
    """
    embedded = list_recipes()
    path = embedded.get(str(path_or_name)) or _absolute(path_or_name)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_RECIPE_BYTES + 1)
    except (OSError, ValueError) as error:
        names = ", ".join(embedded) or "none"
        near = did_you_mean(str(path_or_name), embedded)
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(
            f"recipe {str(path_or_name)!r} cannot be read ({reason}){near}; give the path of a"
            f" TOML file or the name of an embedded recipe ({names})"
        ) from None
    if len(data) > _MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: is larger than {_MAX_RECIPE_BYTES:,} bytes: not a recipe")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{path}: is not valid TOML ({reason}); see the README for one") from None
    return _Reader(path).recipe(table)


def verify(recipe: Recipe, *, all_sizes: bool = False) -> tuple[Path, ...]:
    """Compare the files of `recipe` with the sha256 it states, each file once.

    Files over `VERIFIED_AT_LOAD` bytes take seconds and are hashed only with `all_sizes`. A file
    without a stated sha256 is not looked at. Returns what was passed over for its size, so that
    nobody takes it for verified.

    Raises ModelFileError if a file cannot be read or is not the one the recipe was made for.
    """
    skipped = []
    specs = [spec for delta in recipe.deltas.values() for spec in (delta.tuned, delta.reference)]
    specs += [recipe.base] if recipe.base else []
    stated = {(spec.lora or spec.file, spec.sha256) for spec in specs if spec.sha256}
    for path, expected in sorted(stated):
        try:
            if not all_sizes and os.stat(path).st_size > VERIFIED_AT_LOAD:
                skipped.append(path)
                continue
            found = file_sha256(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelFileError(f"{path}: cannot be read ({reason}); check the path") from None
        if found != expected:
            raise ModelFileError(
                f"{path}: sha256 is {found[:12]}…, the recipe states {str(expected)[:12]}…;"
                " the file was changed or is damaged: get it again, or correct the recipe"
            )
    return tuple(skipped)


class _Reader:
    """Turns the tables of one TOML file into a Recipe."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, message: str) -> RecipeError:
        return RecipeError(f"{self.path}: {message}")

    def recipe(self, table: dict[str, Any]) -> Recipe:
        self.known(table, _RECIPE_KEYS, "")
        base = None
        if "base" in table:
            base = self.model(table["base"], "base")
            base = replace(base, prompt=base.prompt or "plain")
        deltas = self.value(table, "delta", dict, "", {})
        if not deltas:
            raise self.error("has no delta; add a table [delta.NAME] with `tuned` and `reference`")
        self.value(table, "provenance", dict, "", {})
        n_ctx = table.get("n_ctx")
        if n_ctx is not None and (not isinstance(n_ctx, int) or n_ctx is True or n_ctx < 1):
            raise self.error(f"n_ctx is {n_ctx!r}, not a positive number of tokens")
        return Recipe(
            name=self.value(table, "name", str, "", self.path.stem),
            description=self.value(table, "description", str, "", ""),
            license=self.value(table, "license", str, "", ""),
            n_ctx=n_ctx,
            base=base,
            deltas=MappingProxyType({name: self.delta(name, deltas[name]) for name in deltas}),
            path=self.path,
        )

    def delta(self, name: str, table: object) -> Delta:
        where = f"delta.{name}"
        if not _DELTA_NAME.fullmatch(name):
            raise self.error(f"{where}: use letters, digits, '.', '_' and '-' in a delta's name")
        if not isinstance(table, dict):
            raise self.error(f"{where} is {table!r}, not a table with `tuned` and `reference`")
        self.known(table, _DELTA_KEYS, where + ".")
        weight = table.get("weight", 1.0)
        numeric = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not numeric or not math.isfinite(weight) or weight < 0:
            raise self.error(f"{where}.weight is {weight!r}, not a finite number, 0 or more")
        for role in ("tuned", "reference"):
            if role not in table:
                raise self.error(f"{where} lacks `{role}`; add {role} = {{ file = ... }}")
        reference = self.model(table["reference"], f"{where}.reference")
        tuned = self.model(table["tuned"], f"{where}.tuned", reference)
        tuned = replace(tuned, prompt=tuned.prompt or "template")
        return Delta(name, float(weight), tuned, reference)

    def model(self, table: object, where: str, reference: ModelSpec | None = None) -> ModelSpec:
        """Read one model's table; only with a `reference` may it be an adapter."""
        if not isinstance(table, dict):
            raise self.error(f'{where} is {table!r}, not a table like {{ file = "x.gguf" }}')
        is_lora = reference is not None and "lora" in table
        self.known(table, _LORA_KEYS if is_lora else _FILE_KEYS, where + ".")
        file = self.file(table, "lora" if is_lora else "file", where)
        sha256 = self.value(table, "sha256", str, where + ".", None)
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise self.error(f"{where}.sha256 is {sha256!r}, not 64 lower-case hexadecimal digits")
        prompt = self.value(table, "prompt", str, where + ".", None)
        if prompt is not None:
            try:
                _check_prompt(f"{where}.prompt", prompt)
            except RecipeError as error:
                raise self.error(str(error)) from None
        source = self.value(table, "source", str, where + ".", None)
        if not is_lora:
            return ModelSpec(file, sha256, prompt, None, source)
        assert reference is not None  # is_lora says so; for the type checker
        if table.get("on") != "reference":
            raise self.error(f'{where}.on is {table.get("on")!r}; write on = "reference"')
        return ModelSpec(reference.file, sha256, prompt, file, source)

    def file(self, table: dict[str, Any], key: str, where: str) -> Path:
        name = self.value(table, key, str, where + ".", None)
        if name is None:
            raise self.error(f"{where} lacks `{key}`; add {key} = with the path of a GGUF file")
        if not name or not name.isprintable():
            raise self.error(f"{where}.{key} is {name!r}, not the path of a GGUF file")
        return _absolute(self.path.parent / name)

    def known(self, table: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in keys:
                near = did_you_mean(key, keys)
                raise self.error(f"unknown key `{where}{key}`{near}; it may be {', '.join(keys)}")

    def value(self, table: dict[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
        value = table.get(key, default)
        if key in table and not isinstance(value, kind):
            wanted = "a text" if kind is str else "a table"
            raise self.error(f"{where}{key} is {value!r}, not {wanted}")
        return value


def _check_prompt(where: str, prompt: str) -> None:
    if not is_format(prompt):
        raise RecipeError(
            f"{where} is {prompt!r}{did_you_mean(prompt, FORMATS)}; it may be "
            f"{', '.join(FORMATS)}, or a Jinja template, which contains {{{{ or {{%"
        )


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Not resolved: a hub cache's links carry the names that people know.
    return Path(os.path.abspath(path))
