"""What a pull would bring: each model's files, whether they are the stated ones and go together.

A plan is made from names, sizes and headers, for which megabytes come and not gigabytes. Nothing is
written here. It decides; `pull` tells and fetches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..engine import pairs
from ..engine.defaults import default_memory
from ..errors import HubError, ModelFileError, NotEnoughMemoryError, RecipeError
from ..files import hub, hub_cache, hub_transfer, memory
from ..files.gguf_check import GGUFHeader, read_header
from ..files.gguf_split import part_paths
from ..files.gguf_vocabulary import HeaderVocabulary, read_vocabulary
from ..files.hub_file import HubFile
from ..files.hub_files import (
    BASE_KINDS,
    PAIR_KINDS,
    RemoteFile,
    Repository,
    choose,
    size_of,
    smaller,
)
from ..files.model_names import quantisation
from ..files.recipe import ModelSpec, Recipe
from ..files.recipe_vocabulary import reconcile_recipe
from .pull_wish import Wish
from .terminal import one_line


@dataclass(frozen=True)
class Model:
    """A model that was found: which roles it plays, where it lies, and its spec once it is here."""

    roles: tuple[str, ...]
    repository: Repository
    parts: tuple[RemoteFile, ...]
    spec: ModelSpec

    @property
    def n_bytes(self) -> int:
        """Bytes of all its parts."""
        return size_of(self.parts)

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(hub_transfer.missing(self.repository, part) for part in self.parts)

    @property
    def is_cut(self) -> bool:
        """Whether what is here of it has another size than it is to have."""
        return any(hub_transfer.is_cut(self.repository, part) for part in self.parts)


@dataclass(frozen=True)
class Plan:
    """What a pull would bring.

    Attributes:
        recipe: as it will be saved: with paths in the cache, hashes and revisions.
        models: to be fetched, or here already, the small ones first.
        memory: what running it would take.
        notes: lines for the user: what was chosen, and what may not be meant.
        looked_at: bytes that were fetched to decide.
    """

    recipe: Recipe
    models: tuple[Model, ...]
    memory: memory.MemoryEstimate
    notes: tuple[str, ...]
    looked_at: int


class Planner:
    """Makes one plan, asking the hub about each repository once."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._repositories: dict[tuple[str, str | None], Repository] = {}
        self._headers: dict[tuple[str, str], hub_transfer.Headers] = {}

    def plan(self, recipe: Recipe, wishes: Mapping[str, Wish], *, for_lora: bool) -> Plan:
        """Return what `recipe` needs from the hub.

        Args:
            wishes: role → what was asked for in place of what the recipe states.
            for_lora: for adapters on the small tuned model: that model and `instruct` alone.

        Raises:
            HubError, RecipeError: a model is not there, or is not the one that the recipe states.
            ModelFileError, VocabularyError: it could not be loaded, or they do not go together.
        """
        models = self._models(recipe, wishes, for_lora)
        if not models:
            raise RecipeError(
                f"recipe {recipe.name!r} has no model on the hub; there is nothing to pull"
            )
        found = {role: model.spec for model in models for role in model.roles}
        licence = recipe.license or _joined(model.repository.licence for model in models)
        pulled = replace(recipe.with_models(found), license=licence)
        roles = _for_lora(pulled) if for_lora else pulled.roles()
        headers, vocabularies = self._look(roles, models)
        if not for_lora:
            pairs.check(pulled, headers, weights=False)
            self.notes += pairs.doubts(pulled, headers)
        self.notes += reconcile_recipe(pulled, roles, vocabularies).warnings
        estimate = default_memory(recipe.n_ctx, roles, headers)
        looked_at = sum(each.fetched for each in self._headers.values())
        order = sorted(models, key=lambda model: model.n_bytes)
        return Plan(pulled, tuple(order), estimate, tuple(self.notes), looked_at)

    def _models(
        self, recipe: Recipe, wishes: Mapping[str, Wish], for_lora: bool
    ) -> tuple[Model, ...]:
        """Return each model once, with all the roles that it plays."""
        specs = {role: ModelSpec(Path("?")) for role in wishes} | recipe.models()
        wanted = {role for role in specs if (role == "instruct") == for_lora}
        if for_lora:
            if recipe.instruct is None:
                raise RecipeError(
                    f"recipe {recipe.name!r} has no [instruct], the large instruct model for "
                    "--for-lora; pull it without"
                )
            wanted |= {f"tuned:{next(iter(recipe.deltas))}"}
        models: dict[tuple[str, str], Model] = {}
        for role in sorted(wanted):
            spec = specs[role]
            if role not in wishes and (spec.lora or not isinstance(spec.source, HubFile)):
                continue
            model = self._model(role, spec, wishes.get(role))
            key = model.repository.repo, model.parts[0].path
            if key in models:
                model = replace(model, roles=(*models[key].roles, role))
                if models[key].repository.commit != model.repository.commit:
                    raise RecipeError(f"{'/'.join(key)}: the recipe states two revisions of it")
            models[key] = model
        _no_collisions(models.values())
        return tuple(models.values())

    def _model(self, role: str, spec: ModelSpec, asked: Wish | None) -> Model:
        """Find the model of one role, and compare it with what the recipe states."""
        source = spec.source if isinstance(spec.source, HubFile) and asked is None else None
        if asked is None:
            assert source is not None  # as `_models` asked
            asked = Wish(source.repo, source.file, source.revision)
        repository = self._repository(asked, source, spec)
        usual = BASE_KINDS if role in ("base", "instruct") else PAIR_KINDS
        guessed = source is not None and source.confidence == "guessed"
        parts = choose(repository, asked.file, usual, guessed=guessed)
        name = parts[0].path
        if name != asked.file:
            kind = f", {quantisation(name)}" if quantisation(name) else ""
            self.notes.append(f"{role}: {name} of {asked.repo}{kind} is taken")
        if source is not None and name == source.file:
            _compare(spec, source, parts)
        cache, commit = hub_cache.cache_directory(), repository.commit
        place = hub_cache.place(cache, repository.repo, commit, name, parts[0].digest)
        hashes = tuple(part.sha256 or "" for part in parts)
        stated = hashes if len(hashes) > 1 else hashes[0]
        found = replace(
            spec,
            file=place.snapshot,
            sha256=stated if all(hashes) else None,
            source=HubFile(
                repository.repo, name, commit, size_of(parts) or None, gated=repository.gated
            ),
        )
        return Model((role,), repository, parts, found)

    def _repository(self, asked: Wish, source: HubFile | None, spec: ModelSpec) -> Repository:
        """Return what the hub has, or the cache where that is all that is needed, or to be had."""
        key = asked.repo, asked.revision
        if key in self._repositories:
            return self._repositories[key]
        cached = _cached(asked, spec)
        if cached and source and asked.revision and _is_stated(cached, source, spec):
            return cached
        try:
            self._repositories[key] = hub.look_up(asked.repo, asked.revision)
        except hub.UnreachableError as error:
            if cached is None:
                raise
            if source:
                _check_copy(cached, source, error)
            self.notes.append(f"{asked.repo}: the hub does not answer; the cache has it")
            return cached
        return self._repositories[key]

    def _look(
        self, roles: Mapping[str, ModelSpec], models: Sequence[Model]
    ) -> tuple[dict[str, GGUFHeader], dict[str, HeaderVocabulary]]:
        """Return header and vocabulary of each role's model, looked at where it lies."""
        by_file = {model.spec.file: model for model in models}
        seen: dict[Path, tuple[GGUFHeader, HeaderVocabulary]] = {}
        for spec in roles.values():
            if spec.file in seen:
                continue
            model = by_file.get(spec.file)
            if model is None:  # a file of one's own
                header, vocabulary = read_header(spec.file), read_vocabulary(spec.file)
            else:
                header, vocabulary = self._look_at(model)
            if header.is_adapter:
                raise ModelFileError(f"{header.path}: is an adapter, not a model; name a model")
            seen[spec.file] = header, vocabulary
        return (
            {role: seen[spec.file][0] for role, spec in roles.items()},
            {role: seen[spec.file][1] for role, spec in roles.items()},
        )

    def _look_at(self, model: Model) -> tuple[GGUFHeader, HeaderVocabulary]:
        """Look at a model where it lies; what the cache has of it may be damaged."""
        repository = model.repository
        key = repository.repo, repository.commit
        begun = hub_transfer.Headers(repository, partials=True)
        headers = self._headers.setdefault(key, begun)
        names = {Path(repository.repo, part.path): part for part in model.parts}

        def from_hub(path: Path) -> BinaryIO:
            return headers.open(names[path].path if path in names else path.name)

        def from_here(path: Path) -> BinaryIO:
            found = hub_transfer.found(repository, names[path]) if path in names else None
            return open(found, "rb") if found else from_hub(path)

        first = next(iter(names))
        try:
            return read_header(first, opener=from_here), read_vocabulary(first, opener=from_here)
        except ModelFileError:
            if all(hub_transfer.missing(repository, part) == part.size for part in model.parts):
                raise  # nothing of it is from here
            headers = self._headers[key] = hub_transfer.Headers(repository)
            with contextlib.suppress(hub.UnreachableError):
                return read_header(first, opener=from_hub), read_vocabulary(first, opener=from_hub)
            raise


def check_memory(plan: Plan) -> None:
    """Raise NotEnoughMemoryError, with a smaller choice if there is one, if a plan does not fit."""
    verdict = memory.fits(plan.memory)
    if verdict.fits:
        return
    largest, over = plan.models[-1], verdict.needed - verdict.free
    kind = smaller(largest.repository, largest.parts, largest.n_bytes - over)
    choice = f"; of the base {kind} would fit (--base :{kind})"
    raise NotEnoughMemoryError(verdict.text + choice * bool(kind and largest.roles == ("base",)))


def _for_lora(recipe: Recipe) -> dict[str, ModelSpec]:
    """Return the roles of an adapter on the small tuned model, led by which `instruct` speaks."""
    name, delta = next(iter(recipe.deltas.items()))
    assert recipe.instruct is not None  # as `_models` asked
    return {"base": recipe.instruct, f"tuned:{name}": delta.tuned, f"reference:{name}": delta.tuned}


def _compare(spec: ModelSpec, source: HubFile, parts: Sequence[RemoteFile]) -> None:
    """Refuse files that are not the ones that a recipe was made for."""
    size = size_of(parts)
    told = f"{source}: the file on the hub is not the one this recipe was made for"
    fix = "--update takes it as it is now, or correct the recipe"
    if source.size and source.confidence in (None, "exact") and source.size != size:
        raise HubError(f"{told} (it has {size:,} bytes, stated are {source.size:,}); {fix}")
    for part, sha256 in zip(parts, _hashes(spec), strict=False):
        if part.sha256 and part.sha256 != sha256:
            raise HubError(
                f"{told} (its sha256 is {part.sha256[:12]}…, stated is {sha256[:12]}…); {fix}"
            )


def _cached(asked: Wish, spec: ModelSpec) -> Repository | None:
    """Return what the cache knows of a repository, if that has the model that is asked for."""
    cache = hub_cache.cache_directory()
    commit = asked.revision or hub_cache.main_commit(cache, asked.repo)
    if commit is None:
        return None
    wanted = [part.as_posix() for part in part_paths(Path(asked.file))]
    known = dict(zip(wanted, _hashes(spec), strict=False))
    files = {}
    for name, path in hub_cache.files_of(cache, asked.repo, commit).items():
        digest = hub_cache.digest_of(path) or known.get(name)
        if digest:
            files[name] = RemoteFile(name, path.stat().st_size, digest)
    if asked.file.lower().endswith(".gguf"):
        files = {name: file for name, file in files.items() if name in wanted}
        if len(files) < len(wanted):
            return None
    gated = isinstance(spec.source, HubFile) and spec.source.gated
    return Repository(asked.repo, commit, files, gated=gated) if files else None


def _is_stated(cached: Repository, source: HubFile, spec: ModelSpec) -> bool:
    """Return whether the cache has what the recipe states, by size and name of the content."""
    found = {part.digest for part in cached.files.values()}
    return size_of(cached.files.values()) == source.size and found >= set(_hashes(spec))


def _check_copy(cached: Repository, source: HubFile, error: HubError) -> None:
    """Refuse a copy in the cache that is cut, while the hub cannot be asked for a whole one."""
    size = size_of(cached.files.values())
    if source.size and source.confidence is None and source.revision and size != source.size:
        raise HubError(
            f"{source}: your copy is damaged (it has {size:,} bytes of {source.size:,}), and a "
            f"whole one is not to be had now: {error}"
        )


def _hashes(spec: ModelSpec) -> tuple[str, ...]:
    return (spec.sha256,) if isinstance(spec.sha256, str) else spec.sha256 or ()


def _no_collisions(models: Iterable[Model]) -> None:
    """Refuse files of one repository whose names are one on a system that ignores case."""
    seen: dict[str, str] = {}
    for model in models:
        for part in model.parts:
            name = f"{model.repository.repo}/{part.path}"
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                raise HubError(f"{name} and {other} are one name where case is ignored")


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(one_line(word)[:80] for word in words if word))
