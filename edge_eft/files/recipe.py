"""A recipe as data: which models make one emulation.

`recipe_toml` reads and writes recipes as text; `hashes` says whether the files are those stated.
This module opens no file and knows nothing of TOML, and of GGUF only how split models are named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import PromptError, RecipeError
from ..system import at_home
from ..text.formats import CHOICES, FORMATS, check_template_kwargs, is_format
from ..validate import checked_call, checked_init, did_you_mean, kind, number, whole
from .gguf_split import model_stem
from .hub_file import HubFile

Sha256 = str | tuple[str, ...]  # of a file in hexadecimal; of a split model one for each part

DEFAULT_N_CTX = 4096  # tokens, if a recipe states none and the models were trained on as many
MAX_N_CTX = 2**24  # tokens, more than any model was trained on
_A_MODEL = "a ModelSpec"


@checked_init(RecipeError)
@dataclass(frozen=True)
class ModelSpec:
    """One model of a recipe.

    `file` and `lora` are absolute; with a `lora`, `file` is the reference's model that it is put
    on, and `sha256` and `source` are the adapter's. Of a split model `file` is the first part, and
    `sha256` has one hash for each part. `prompt` is None where none was asked for: a base is then
    told plain prompts, and a reference what the base is. `source` says where the file comes from:
    its place on the Hugging Face hub, or words for people. Of a model that only the hub has
    (`needs_pull`), `file` is its path there. `template_kwargs` are variables for its chat template,
    of JSON's kinds.
    `end_tokens` are texts or ids of tokens that end its replies, in addition to those that the
    file names. `adopt` are texts or ids of tokens that a tuned model renamed and means: they are
    what it says in the whole recipe.
    """

    file: Path
    sha256: Sha256 | None = None
    prompt: str | None = None
    lora: Path | None = None
    source: str | HubFile | None = None
    end_tokens: tuple[str | int, ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    adopt: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("file", "lora"):
            value = getattr(self, name)
            if name == "file" or value is not None:
                kind(name, value, str | os.PathLike, "a path", RecipeError)
                object.__setattr__(self, name, _nameable(name, Path(value)))
        hashes = "a text, or a tuple of one for each part"
        kind("sha256", self.sha256, str | tuple | None, hashes, RecipeError)
        for each in self.sha256 if isinstance(self.sha256, tuple) else ():
            kind("a hash in sha256", each, str, "a text", RecipeError)
        kind("prompt", self.prompt, str | None, "a text", RecipeError)
        kind("source", self.source, str | HubFile | None, "a text or a HubFile", RecipeError)
        for name in ("end_tokens", "adopt"):
            tokens = getattr(self, name)
            kind(name, tokens, list | tuple, "a list of texts or ids", RecipeError)
            for token in tokens:
                kind(f"a token in {name}", token, str | int, "a text or an id", RecipeError)
        try:
            kwargs = check_template_kwargs(self.template_kwargs, "template_kwargs")
        except PromptError as error:
            raise RecipeError(str(error)) from None
        object.__setattr__(self, "template_kwargs", kwargs)

    @property
    def needs_pull(self) -> bool:
        """Whether only the hub has this model: `edge-eft pull` gets it."""
        return isinstance(self.source, HubFile) and not (self.lora or self.file).is_absolute()


def _nameable(name: str, path: Path) -> Path:
    """Return `path` if the system can have a file of that name, else raise RecipeError."""
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise RecipeError(f"{name} is {str(path)!r:.80}, which cannot be the name of a file")
    return path


@checked_init(RecipeError)
@dataclass(frozen=True)
class Delta:
    """A tuned model, its reference, and the weight of their difference (finite, 0 or more)."""

    name: str
    weight: float
    tuned: ModelSpec
    reference: ModelSpec

    def __post_init__(self) -> None:
        kind("a delta's name", self.name, str, "a text", RecipeError)
        weight = number(f"the weight of {self.name!r}", self.weight, 0.0, error=RecipeError)
        object.__setattr__(self, "weight", weight)
        for side in ("tuned", "reference"):
            kind(f"{side} of {self.name!r}", getattr(self, side), ModelSpec, _A_MODEL, RecipeError)
        if self.reference.adopt:
            raise _adopts_nothing(f"the reference of {self.name!r}")


def _adopts_nothing(what: str) -> RecipeError:
    return RecipeError(f"{what} adopts tokens; only a tuned model does: give `adopt` to that")


@checked_init(RecipeError)
@dataclass(frozen=True)
class Recipe:
    """The models of one emulation.

    `instruct` is the large model of the family as its maker tuned it, the base for adapters on the
    small tuned model. `path` is the TOML file, None for `from_files`; `provenance` says how the
    files were made, for people.
    """

    name: str
    description: str
    license: str
    n_ctx: int | None
    base: ModelSpec | None
    deltas: Mapping[str, Delta]
    path: Path | None
    provenance: Mapping[str, str] = field(default_factory=dict)
    instruct: ModelSpec | None = None

    def __post_init__(self) -> None:
        for name in ("name", "description", "license"):
            kind(name, getattr(self, name), str, "a text", RecipeError)
        if self.n_ctx is not None:
            whole("n_ctx", self.n_ctx, 1, MAX_N_CTX, error=RecipeError)
        for name in ("base", "instruct"):
            value = getattr(self, name)
            kind(name, value, ModelSpec | None, f"{_A_MODEL}, or None", RecipeError)
            if value is not None and value.adopt:
                raise _adopts_nothing(name)
        kind("deltas", self.deltas, Mapping, "a mapping of names to deltas", RecipeError)
        if not self.deltas:
            raise RecipeError("deltas is empty; a recipe has at least one")
        for name, delta in self.deltas.items():
            kind(f"deltas[{name!r}]", delta, Delta, "a Delta", RecipeError)
        kind("path", self.path, str | os.PathLike | None, "a path, or None", RecipeError)
        kind("provenance", self.provenance, Mapping, "a mapping", RecipeError)

    def roles(self) -> dict[str, ModelSpec]:
        """Return the model of each role: `base`, and `tuned:NAME`, `reference:NAME` of each delta.

        Whether they are on this machine, `pulled.check_here` asks.

        Raises RecipeError if the recipe names no base yet.
        """
        if self.base is None:
            raise RecipeError(f"recipe {self.name!r} names no base model; give one: --base FILE")
        base = replace(self.base, prompt=self.base.prompt or "plain")
        roles = {"base": base}
        for delta in self.deltas.values():
            # A reference's rows are compared with the base's, so it is asked as the base is.
            reference = delta.reference
            if reference.prompt is None:
                reference = replace(
                    reference,
                    prompt=base.prompt,
                    template_kwargs=reference.template_kwargs or base.template_kwargs,
                )
            roles |= {f"tuned:{delta.name}": delta.tuned, f"reference:{delta.name}": reference}
        return roles

    def models(self, *, instruct: bool = True) -> dict[str, ModelSpec]:
        """Return every model that the recipe names, as it names it: role, or "instruct" → model.

        Of an adapter, the model that it is put on is the reference's, which is there as well.

        Args:
            instruct: whether with the large instruct model, which only adapters need.
        """
        models = {"base": self.base, "instruct": self.instruct if instruct else None}
        for name, delta in self.deltas.items():
            models |= {f"tuned:{name}": delta.tuned, f"reference:{name}": delta.reference}
        return {role: spec for role, spec in models.items() if spec}

    def with_models(self, models: Mapping[str, ModelSpec]) -> Recipe:
        """Return this recipe with other models in the roles that `models` names, as `models()`."""
        deltas = {}
        for name, delta in self.deltas.items():
            reference = models.get(f"reference:{name}", delta.reference)
            tuned = models.get(f"tuned:{name}", delta.tuned)
            if tuned.lora:
                tuned = replace(tuned, file=reference.file)
            deltas[name] = replace(delta, tuned=tuned, reference=reference)
        return replace(
            self,
            base=models.get("base", self.base),
            instruct=models.get("instruct", self.instruct),
            deltas=MappingProxyType(deltas),
        )

    @property
    def needs_pull(self) -> bool:
        """Whether only the hub has one of the models that running it takes."""
        return any(spec.needs_pull for spec in self.models(instruct=False).values())

    def with_base(
        self, file: str | os.PathLike[str] | None = None, *, prompt: str | None = None
    ) -> Recipe:
        """Return this recipe on another base model, or with another prompt format for it.

        Args:
            file: the base's GGUF, relative to the working directory; None keeps the recipe's.
            prompt: its format; None keeps the recipe's, if there is one.

        Raises RecipeError if `prompt` is not a format.
        """
        if prompt is not None:
            check_prompt("prompt", prompt)
        base = self.base if file is None else ModelSpec(absolute(file))
        told = base if prompt is not None else self.base
        if base is None or told is None:
            return replace(self, base=base)
        kwargs = told.template_kwargs
        return replace(
            self, base=replace(base, prompt=prompt or told.prompt, template_kwargs=kwargs)
        )

    def with_lora(
        self,
        adapter: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        prompt: str | None = None,
    ) -> Recipe:
        """Return the recipe of an adapter on this one's small instruct model, its first tuned one.

        That model with the adapter is the tuned side, without it the reference, and `instruct` is
        the base. Each has its own chat template.

        Args:
            adapter: a LoRA GGUF, or a directory of PEFT's, which is converted and kept in the
                cache directory.
            base: another large instruct model's GGUF, and `prompt` its format.

        Raises:
            RecipeError: there is no large instruct model, the models have to be pulled first, or
                `prompt` is not a format.
            ModelFileError: `adapter` is none, or does not fit; names the recipes that it fits.
        """
        from .lora import with_lora  # it knows recipes

        if prompt is not None:
            check_prompt("prompt", prompt)
        large = None if base is None else ModelSpec(absolute(base), prompt=prompt)
        return with_lora(self, adapter, base=large)


def shared_contexts(roles: Mapping[str, ModelSpec]) -> list[tuple[tuple[str, ...], ModelSpec]]:
    """Return which roles share a context, and the model of each context, the base's first.

    Roles of one side (base, tuned or reference) do if they have the same model, adapter, prompt
    format and variables for it: they are then told the same and give the same logits.
    """
    shared: dict[tuple[Any, ...], list[str]] = {}
    for role, spec in roles.items():
        paths = [os.path.realpath(path) for path in (spec.file, spec.lora) if path]
        told = (spec.prompt, json.dumps(dict(spec.template_kwargs), sort_keys=True))
        shared.setdefault((role.partition(":")[0], *paths, *told), []).append(role)
    return [(tuple(names), roles[names[0]]) for names in shared.values()]


@checked_call(RecipeError)
def from_files(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    prompt: str | None = None,
) -> Recipe:
    """Return a recipe of three files with one delta, named "tuned", of weight 1.

    Args:
        base, tuned, reference: GGUF files, relative to the working directory.
        prompt: the format of base and reference; None: plain, which is said if both have chat
            templates. The tuned model has its own template.

    Raises RecipeError if `prompt` is not a format.
    """
    if prompt is not None:
        check_prompt("prompt", prompt)
    delta = Delta(
        name="tuned",
        weight=1.0,
        tuned=ModelSpec(absolute(tuned), prompt="template"),
        reference=ModelSpec(absolute(reference), prompt=prompt),
    )
    return Recipe(
        name=model_stem(absolute(base)),
        description="",
        license="",
        n_ctx=None,
        base=ModelSpec(absolute(base), prompt=prompt),
        deltas=MappingProxyType({delta.name: delta}),
        path=None,
    )


def check_prompt(where: str, prompt: str) -> None:
    """Raise RecipeError, naming `where`, if `prompt` is not a format."""
    kind(where, prompt, str, "a text", RecipeError)
    if not is_format(prompt):
        near = did_you_mean(prompt, FORMATS)
        raise RecipeError(f"{where} is {prompt!r}{near}; it may be {CHOICES}")


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path, links not followed: a hub cache's carry the names people know.

    A leading ~ is the home directory, as in a shell, which expands it only where a word begins.

    Raises RecipeError if it is not a path, or that home or the working directory is not known.
    """
    kind("a path", path, str | os.PathLike, "a text or a path", RecipeError)
    if not os.fspath(path):
        raise RecipeError("a path is empty; name a file")
    try:
        fits = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a character
        fits = False
    if not fits:
        raise RecipeError(f"{os.fspath(path)!r:.60} cannot be the name of a file")
    try:
        path = at_home(path)
    except FileNotFoundError as error:
        raise RecipeError(
            f"{error.strerror}; write the path in full, or ./~ for a name that begins with ~"
        ) from None
    try:
        return Path(os.path.abspath(path))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: the working directory is gone; change to another, or write the path in full"
        ) from None
