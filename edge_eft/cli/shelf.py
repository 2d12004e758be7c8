"""What there is to run: the recipes that have a name, what of each is here, and what it takes.

Plain data for `list`, `show` and `verify`. Of models that are here the headers are read and nothing
is loaded; of those that only the hub has the catalogue says what is known.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..engine.defaults import default_memory
from ..errors import EdgeEftError
from ..files import memory
from ..files.batch_invariance import is_batch_invariant, is_named_batch_invariant
from ..files.hub_file import HubFile
from ..files.memory_check import Fit, fit
from ..files.pulled import is_for_lora, model_files, told_to_pull
from ..files.recipe import DEFAULT_N_CTX, ModelSpec, Recipe
from ..files.recipe_names import catalogue, embedded_recipes, load_recipe, natural, own_recipes
from ..files.rough_memory import rough_estimate

Kind = Literal["embedded", "own", "pulled", "catalogue"]
State = Literal["here", "partly here", "to pull", "files missing"]


@dataclass(frozen=True)
class Entry:
    """A recipe on the shelf.

    Attributes:
        kind: whose it is; "pulled" is one's own with models of the hub.
        state: "to pull": of its models none is here; "files missing": files are gone that no
            pull brings back.
        n_bytes, to_pull: bytes of all its models, and of those that are to be fetched; None: not
            known.
        memory: bytes that running it takes; None: not known. `approximate` unless it comes from
            headers.
        ratio: bytes of the drafting model per byte of the base, the price of a draft.
        drafts: whether they leave the text as it is "exact"ly or up to "rounding".
        problem: what is wrong with a file, in a line.
    """

    name: str
    kind: Kind
    state: State
    path: str
    recipe: Recipe
    n_bytes: int | None
    to_pull: int | None
    missing: tuple[str, ...]
    memory: int | None
    approximate: bool
    ratio: float | None
    drafts: Literal["exact", "rounding"] | None
    problem: str | None

    @property
    def gated(self) -> bool:
        """Whether a licence has to be accepted on the hub before it can be pulled."""
        return any(
            isinstance(spec.source, HubFile) and spec.source.gated
            for spec in self.recipe.models(instruct=False).values()
            if spec.needs_pull
        )

    @property
    def for_lora(self) -> bool:
        """Whether what `chat --lora` needs is here, and was meant to be all."""
        return self.kind == "pulled" and is_for_lora(self.recipe)

    @property
    def is_here(self) -> bool:
        """Whether there is something of it on this machine, more than in others' recipes."""
        return self.kind != "catalogue" and self.state != "to pull"

    @property
    def fits(self) -> Fit | None:
        """Whether its memory is to be had here."""
        return None if self.memory is None else fit(self.memory)

    def as_data(self) -> dict[str, Any]:
        """Return all of it for programs."""
        recipe = self.recipe
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "path": self.path,
            "description": recipe.description,
            "license": recipe.license,
            "gated": self.gated,
            "for_lora": self.for_lora,
            "n_ctx": recipe.n_ctx,
            "bytes": self.n_bytes,
            "bytes_to_pull": self.to_pull,
            "missing": list(self.missing),
            "problem": self.problem,
            "memory": self.memory,
            "memory_approximate": self.approximate,
            "fits": self.fits,
            "ratio": self.ratio,
            "drafts": self.drafts,
            "models": {role: model_data(spec) for role, spec in recipe.models().items()},
        }


@dataclass(frozen=True)
class Unreadable:
    """A recipe's file that is none."""

    name: str
    kind: Kind
    path: str
    problem: str

    def as_data(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {**asdict(self), "state": "unreadable"}


def shelf() -> Iterator[Entry | Unreadable]:
    """Yield what has a name here: the embedded recipes, one's own, and the catalogue's others."""
    embedded, own = embedded_recipes(), own_recipes()
    taken: dict[str, tuple[Kind, Path]] = {
        name: ("catalogue", p) for name, p in catalogue().items()
    }
    taken |= {name: ("own", path) for name, path in own.items()}
    taken |= {name: ("embedded", path) for name, path in embedded.items()}
    order = ("embedded", "own", "catalogue")
    pulled: set[tuple[str, str] | None] = set()
    for name in sorted(taken, key=lambda name: (order.index(taken[name][0]), natural(name))):
        kind, path = taken[name]
        try:
            recipe = load_recipe(path)
        except EdgeEftError as error:
            yield Unreadable(name, kind, str(path), str(error))
            continue
        entry = entry_of(recipe, name, kind, pulled)
        pulled |= {_on_hub(spec) for spec in recipe.models().values() if _is_here(spec)}
        yield entry


def entry_of(
    recipe: Recipe,
    name: str,
    kind: Kind,
    pulled: Collection[tuple[str, str] | None] = (),
) -> Entry:
    """Return what there is to tell of a recipe.

    Args:
        recipe: as it was read.
        name: by which it is found, and whose it is: its `kind`.
        pulled: models of the hub, as (repository, file), that are here for other recipes.
    """
    models = recipe.models(instruct=False)
    needed = {_identity(spec): spec for spec in models.values()}
    sizes = {key: size_of(spec) for key, spec in needed.items()}
    absent = [key for key, spec in needed.items() if not _is_here(spec)]
    on_hub = [key for key in absent if isinstance(needed[key].source, HubFile)]
    to_pull = [key for key in on_hub if _on_hub(needed[key]) not in pulled]
    if kind == "own" and any(isinstance(spec.source, HubFile) for spec in models.values()):
        kind = "pulled"
    about = _Measures(recipe, models, sizes)
    if not absent and recipe.base:
        about.from_headers()
    state: State = "partly here" if len(to_pull) < len(needed) else "to pull"
    if len(on_hub) < len(absent):
        state = "files missing"
    return Entry(
        name=name,
        kind=kind,
        state=state if absent else "here",
        path=str(recipe.path),
        recipe=recipe,
        n_bytes=_sum(sizes.values()),
        to_pull=_sum(sizes[key] for key in to_pull),
        missing=tuple(
            str(path)
            for key in absent
            if not needed[key].needs_pull
            for path in model_files(needed[key])
            if not os.path.isfile(path)
        ),
        memory=about.memory,
        approximate=about.approximate,
        ratio=about.ratio,
        drafts=about.drafts,
        problem=about.problem,
    )


class _Measures:
    """Memory, ratio and drafts of a recipe: from sizes and names, or, if all is here, headers."""

    def __init__(
        self,
        recipe: Recipe,
        models: Mapping[str, ModelSpec],
        sizes: Mapping[Any, int | None],
    ) -> None:
        self._recipe = recipe
        self.problem: str | None = None
        self.approximate = True
        self.memory: int | None = None
        self.ratio: float | None = None
        self.drafts: Literal["exact", "rounding"] | None = None
        known = [size for size in sizes.values() if size]
        if recipe.base is None:
            return
        if len(known) == len(sizes):
            self.memory = rough_estimate(known, recipe.n_ctx or DEFAULT_N_CTX)
        base, tuned = recipe.base, next(iter(recipe.deltas.values())).tuned
        base_size = sizes[_identity(base)]
        drafting = size_of(ModelSpec(tuned.file)) if tuned.lora else sizes[_identity(tuned)]
        if base_size and drafting:
            self.ratio = round(drafting / base_size, 4)
        names = [spec.file.name for spec in models.values()]
        self.drafts = "exact" if all(map(is_named_batch_invariant, names)) else "rounding"

    def from_headers(self) -> None:
        """Take what the headers say, or what is wrong with one."""
        try:
            roles = self._recipe.roles()
            with told_to_pull(self._recipe):
                headers = memory.headers(roles)
        except EdgeEftError as error:
            self.problem, self.memory, self.drafts = str(error), None, None
            return
        self.memory = default_memory(self._recipe.n_ctx, roles, headers).total
        self.approximate = False
        self.drafts = "exact" if all(map(is_batch_invariant, headers.values())) else "rounding"


def model_data(spec: ModelSpec) -> dict[str, Any]:
    """Return what a recipe says of a model, for programs, and whether it is here."""
    return {
        "file": None if spec.needs_pull else str(spec.lora or spec.file),
        "on": str(spec.file) if spec.lora else None,
        "source": asdict(spec.source) if isinstance(spec.source, HubFile) else spec.source,
        "sha256": spec.sha256,
        "bytes": size_of(spec),
        "here": _is_here(spec),
        "prompt": spec.prompt,
    }


def size_of(spec: ModelSpec) -> int | None:
    """Return the bytes of a model: of its files, else what its source says, else None."""
    files = model_files(spec)
    if not spec.needs_pull and all(map(os.path.isfile, files)):
        return sum(os.stat(file).st_size for file in files)
    return spec.source.size if isinstance(spec.source, HubFile) else None


def _is_here(spec: ModelSpec) -> bool:
    return not spec.needs_pull and all(map(os.path.isfile, model_files(spec)))


def _identity(spec: ModelSpec) -> object:
    """Return what two roles with one model have in common."""
    return _on_hub(spec) if spec.needs_pull else os.path.realpath(spec.lora or spec.file)


def _on_hub(spec: ModelSpec) -> tuple[str, str] | None:
    source = spec.source
    return (source.repo, source.file) if isinstance(source, HubFile) else None


def _sum(sizes: Iterable[int | None]) -> int | None:
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total
