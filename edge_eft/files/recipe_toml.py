"""Recipes as TOML: the reader and the writer. `recipe_names` finds them by name.

    name = "atlas"                    # default: the file's name
    description = "..."
    license = "..."
    n_ctx = 512                       # default: 4096, or what the models were trained for if less

    [base]                            # may be left out, and given by `with_base`
    file = "atlas/base.gguf"          # relative to the recipe, or absolute
    sha256 = "..."                    # of a split model a list, with one for each part
    prompt = "plain"                  # template, template:NAME, chatml, plain, transcript, or Jinja
    source = "..."                    # where the file comes from, for people; or on the hub:
    # source = { repo = "owner/name", file = "base.gguf", revision = "...", size = 123 }
    end_tokens = ["<|im_end|>", 2]    # more tokens that end its replies: texts or ids
    template_kwargs = { enable_thinking = false }   # variables for its chat template

    [delta.chat]                      # one table for each delta
    weight = 1.0
    tuned = { file = "atlas/chat.gguf", sha256 = "...", prompt = "template" }
    # and, of a tuned model alone:   adopt = ["<think>", 151649]: tokens that it renamed and means
    reference = { file = "atlas/reference.gguf", sha256 = "..." }

    [instruct]                        # the large model as its maker tuned it: base for adapters
    file = "..."

    [provenance]                      # free-form, for people: how the files were made

An adapter as the tuned side is written `{ lora = "file.gguf", on = "reference" }`. A model without
`file` is on the hub alone, where `source` says, and has to be pulled.

A file is read strictly: a key or value that recipes do not have is refused by name. What is read
can be written, and reads again as the same recipe. No model file is looked at here.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import PromptError, RecipeError
from ..text.formats import check_template_kwargs
from ..validate import did_you_mean
from .hub_file import HubFile
from .plain_text import utf8
from .recipe import MAX_N_CTX, Delta, ModelSpec, Recipe, Sha256, absolute, check_prompt

_MAX_RECIPE_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names are typed in `--mix a=.7,b=.3` and stand in roles such as `tuned:NAME`.
_DELTA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # in a path; whatever else has a name is one
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_RECIPE_KEYS = (
    *("name", "description", "license", "n_ctx"),
    *("base", "delta", "instruct", "provenance"),
)
_DELTA_KEYS = ("weight", "tuned", "reference")
_COMMON_KEYS = ("sha256", "prompt", "source", "end_tokens", "template_kwargs")
_SOURCE_KEYS = tuple(field.name for field in fields(HubFile))
_FILE_KEYS = ("file", *_COMMON_KEYS)
_TUNED_KEYS = (*_FILE_KEYS, "adopt")
_LORA_KEYS = ("lora", "on", *_COMMON_KEYS, "adopt")


def read_recipe(path: Path) -> Recipe:
    """Read the recipe in the TOML file at `path`, which is absolute. No model is looked at.

    Raises OSError or ValueError if it cannot be read, and RecipeError, naming the file and the key,
    if it is not TOML, has a key that recipes do not have, lacks one, or holds a value of the wrong
    kind.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_RECIPE_BYTES + 1)
    if data.startswith(b"GGUF"):
        raise RecipeError(
            f"{path}: is one model (GGUF), and a recipe is a TOML file that names three; without"
            " a recipe, run, chat, serve and bench take --base, --tuned and --reference"
        )
    if len(data) > _MAX_RECIPE_BYTES:
        raise RecipeError(f"{path}: is larger than {_MAX_RECIPE_BYTES:,} bytes: not a recipe")
    return parse_recipe(data, path)


def parse_recipe(data: bytes, path: Path) -> Recipe:
    """Return the recipe that `data` is the text of, as if it were in the file at `path`.

    Raises RecipeError as `read_recipe`.
    """
    try:
        return _Reader(path).recipe(tomllib.loads(utf8(data).decode()))
    except (ValueError, OverflowError, RecursionError) as error:  # numbers beyond TOML's, too
        seen = str(error).splitlines()[0]
        raise RecipeError(f"{path}: is not valid TOML ({seen}); see the README for one") from None


def to_toml(recipe: Recipe, directory: str | os.PathLike[str]) -> str:
    """Return `recipe` as TOML for a file in `directory`; models below it get relative paths.

    Of an adapter, the model that it is put on is not written: it is the reference's.
    """
    lines = [f"name = {quoted(recipe.name)}"]
    if recipe.description:
        lines.append(f"description = {quoted(recipe.description)}")
    if recipe.license:
        lines.append(f"license = {quoted(recipe.license)}")
    if recipe.n_ctx is not None:
        lines.append(f"n_ctx = {recipe.n_ctx}")
    if recipe.base is not None:
        lines += ["", "[base]", *_pairs(_entry(recipe.base, directory))]
    else:
        lines += ["", "# No base yet: edge-eft run THIS_FILE --base large.gguf"]
    for delta in recipe.deltas.values():
        lines += ["", f"[delta.{quoted(delta.name)}]", f"weight = {delta.weight}"]
        for role, spec in (("tuned", delta.tuned), ("reference", delta.reference)):
            lines.append(f"{role} = {{ {', '.join(_pairs(_entry(spec, directory)))} }}")
    if recipe.instruct is not None:
        lines += ["", "[instruct]", *_pairs(_entry(recipe.instruct, directory))]
    if recipe.provenance:
        lines += ["", "[provenance]", *_pairs(recipe.provenance.items())]
    return "\n".join(lines) + "\n"


def relative(path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> str:
    """Return `path` as a recipe in `directory` names it: relative if below, else absolute."""
    path, directory = absolute(path), absolute(directory)
    if not path.is_relative_to(directory):
        return str(path)
    name = path.relative_to(directory).as_posix()
    return f"./{name}" if name.startswith("~") else name  # else it would be read as a home


def _entry(spec: ModelSpec, directory: str | os.PathLike[str]) -> Iterable[tuple[str, Any]]:
    if spec.lora is not None:
        yield "lora", _path(spec.lora, directory)
        yield "on", "reference"
    elif not spec.needs_pull:
        yield "file", _path(spec.file, directory)
    for key in ("sha256", "prompt"):
        if getattr(spec, key) is not None:
            yield key, getattr(spec, key)
    if isinstance(spec.source, HubFile):
        yield "source", {key: value for key, value in asdict(spec.source).items() if value}
    elif spec.source is not None:
        yield "source", spec.source
    for key in ("end_tokens", "template_kwargs", "adopt"):
        if getattr(spec, key):
            yield key, getattr(spec, key)


def _path(path: Path, directory: str | os.PathLike[str]) -> str:
    name = relative(path, directory)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RecipeError(
            f"{name!r} is not UTF-8, and a recipe names nothing else; rename the file or directory"
        ) from None
    return name


def _pairs(items: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        f"{key if _BARE_KEY.fullmatch(key) else quoted(key)} = {_written(value)}"
        for key, value in items
    ]


def _written(value: Any) -> str:
    """Return a value of JSON's kinds, other than null, as TOML writes it on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value.items()))} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def quoted(text: str) -> str:
    """Return a TOML basic string; of what is no text (a command's argument, say) a visible form."""
    text = text.encode("utf-8", "backslashreplace").decode()
    text = text.translate(_ESCAPES)
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text) + '"'


class _Reader:
    """Turns the tables of one TOML file into a Recipe."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, message: str) -> RecipeError:
        return RecipeError(f"{self.path}: {message}")

    def recipe(self, table: dict[str, Any]) -> Recipe:
        self.known(table, _RECIPE_KEYS, "")
        base = self.model(table["base"], "base") if "base" in table else None
        instruct = self.model(table["instruct"], "instruct") if "instruct" in table else None
        deltas = self.value(table, "delta", dict, "", {})
        if not deltas:
            raise self.error("has no delta; add a table [delta.NAME] with `tuned` and `reference`")
        provenance = self.value(table, "provenance", dict, "", {})
        n_ctx = table.get("n_ctx")
        if n_ctx is not None and (type(n_ctx) is not int or not 1 <= n_ctx <= MAX_N_CTX):
            raise self.error(
                f"n_ctx is {n_ctx!r}, not a positive number of tokens up to {MAX_N_CTX}"
            )
        return Recipe(
            name=self.value(table, "name", str, "", self.path.stem),
            description=self.value(table, "description", str, "", ""),
            license=self.value(table, "license", str, "", ""),
            n_ctx=n_ctx,
            base=base,
            deltas=MappingProxyType({name: self.delta(name, deltas[name]) for name in deltas}),
            path=self.path,
            provenance={key: str(value) for key, value in provenance.items()},
            instruct=instruct,
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
        """Read one model's table; a `reference` is given for a tuned one, which may do more."""
        if not isinstance(table, dict):
            raise self.error(f'{where} is {table!r}, not a table like {{ file = "x.gguf" }}')
        is_lora = reference is not None and "lora" in table
        keys = _LORA_KEYS if is_lora else _FILE_KEYS if reference is None else _TUNED_KEYS
        if "adopt" in table and "adopt" not in keys:
            raise self.error(
                f"{where}.adopt: only a tuned model adopts tokens; write it in `tuned`"
            )
        self.known(table, keys, where + ".")
        source = self.source(table, where)
        if isinstance(source, HubFile) and not is_lora and "file" not in table:
            file = Path(source.file)
        else:
            file = self.file(table, "lora" if is_lora else "file", where)
        prompt = self.value(table, "prompt", str, where + ".", None)
        if prompt is not None:
            try:
                check_prompt(f"{where}.prompt", prompt)
            except RecipeError as error:
                raise self.error(str(error)) from None
        spec = ModelSpec(
            file,
            self.sha256(table, where),
            prompt,
            source=source,
            end_tokens=self.tokens(table, "end_tokens", where),
            template_kwargs=self.template_kwargs(table, where),
            adopt=self.tokens(table, "adopt", where),
        )
        if not is_lora:
            return spec
        assert reference is not None  # is_lora says so; for the type checker
        if table.get("on") != "reference":
            raise self.error(f'{where}.on is {table.get("on")!r}; write on = "reference"')
        return replace(spec, file=reference.file, lora=file)

    def source(self, table: dict[str, Any], where: str) -> str | HubFile | None:
        value = table.get("source")
        if not isinstance(value, dict):
            text: str | None = self.value(table, "source", str, where + ".", None)
            return text
        self.known(value, _SOURCE_KEYS, f"{where}.source.")
        for key in ("repo", "file"):
            if key not in value:
                seen = f"{where}.source lacks `{key}`"
                raise self.error(f'{seen}; write {{ repo = "owner/name", file = "model.gguf" }}')
        try:
            return HubFile(**value)
        except RecipeError as error:
            raise self.error(f"{where}.source: {error}") from None

    def tokens(self, table: dict[str, Any], key: str, where: str) -> tuple[str | int, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(type(token) in (str, int) for token in value):
            raise self.error(f"{where}.{key} is {value!r}, not a list of token texts or ids")
        return tuple(value)

    def template_kwargs(self, table: dict[str, Any], where: str) -> dict[str, Any]:
        value: dict[str, Any] = self.value(table, "template_kwargs", dict, where + ".", {})
        try:
            return check_template_kwargs(value, f"{where}.template_kwargs")
        except PromptError as error:  # TOML has dates, nan and inf
            raise self.error(str(error)) from None

    def sha256(self, table: dict[str, Any], where: str) -> Sha256 | None:
        value = table.get("sha256")
        if value is None:
            return None
        hashes = value if isinstance(value, list) and value else [value]
        for each in hashes:
            if not isinstance(each, str) or not _SHA256.fullmatch(each):
                seen = f"{where}.sha256 is {each!r}, not 64 lower-case hexadecimal digits"
                raise self.error(f"{seen}, or a list of such for a split model")
        return tuple(hashes) if len(hashes) > 1 else str(hashes[0])

    def file(self, table: dict[str, Any], key: str, where: str) -> Path:
        name = self.value(table, key, str, where + ".", None)
        if name is None:
            raise self.error(f"{where} lacks `{key}`; add {key} = with the path of a GGUF file")
        if not name or _CONTROL.search(name):
            raise self.error(f"{where}.{key} is {name!r}, not the path of a GGUF file")
        try:
            return absolute(name if name.startswith("~") else self.path.parent / name)
        except RecipeError as error:
            raise self.error(f"{where}.{key}: {error}") from None

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
