"""What is served: recipes as texts, and the names that clients know them and their parts by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .api_error import ApiError

if TYPE_CHECKING:
    from .engine import Engine
    from .reply import Reply


@dataclass(frozen=True)
class ServedRecipe:
    """A recipe under the name that clients know it by, as it goes to another process.

    Attributes:
        toml: its text; `path`: the file that relative names in it are relative to.
        description: what it says of itself.
        parts: its models that can be used by themselves, such as "base" and "tuned".
    """

    name: str
    toml: str
    path: str
    description: str = ""
    parts: tuple[str, ...] = ("base", "tuned")


@dataclass
class FilesRead:
    """How much of a recipe's files is read while it is loaded, in bytes.

    llama.cpp maps a file before it tells anything of it, and that is when a disk is waited for. So
    what the engine's process has of files in memory counts as well.

    Attributes:
        total: of all its files.
        before: of files, that the process had in memory when the loading began.
        done: so far.
    """

    total: int
    before: int
    done: int = 0

    def note(self, told: int, of_files: int) -> dict[str, int]:
        """Return how far it is: "bytes" of "total".

        Args:
            told: as the engine said.
            of_files: that its process has in memory.
        """
        self.done = max(self.done, told, min(of_files - self.before, self.total))
        return {"bytes": self.done, "total": self.total}


@dataclass
class RecipeState:
    """What is going on with a recipe that is served.

    Attributes:
        facts: from the engine, once it was loaded; kept afterwards.
        loading: done when it is loaded, or could not be.
        files: how much of them is read, while it is loaded.
        replies: those in work.
    """

    served: ServedRecipe
    facts: dict[str, Any] | None = None
    loading: asyncio.Future[dict[str, Any]] | None = None
    files: FilesRead | None = None
    replies: set[Reply] = field(default_factory=set)
    used: float = 0.0

    @property
    def loaded(self) -> bool:
        """Whether it can take requests at once."""
        load = self.loading
        return bool(load and load.done() and not load.cancelled() and load.exception() is None)


@dataclass(frozen=True)
class NamedModel:
    """What a client names as its model: a recipe, or one model of it by itself."""

    id: str
    recipe: str
    part: str | None

    @property
    def weights(self) -> Mapping[str, Any]:
        """The dials that the name stands for."""
        return {} if self.part is None else {"only": self.part}


def models(engine: Engine) -> Iterator[NamedModel]:
    """Yield all models, each recipe followed by its parts."""
    for name in engine.names:
        yield NamedModel(name, name, None)
        for part in engine.served(name).parts:
            yield NamedModel(f"{name}:{part}", name, part)


def find(engine: Engine, id: Any) -> NamedModel:
    """Return the model that a request names; one that names none gets the first.

    Ollama's clients add ":latest" to names.

    Raises:
        ApiError: there is none of that name.
    """
    known = {model.id: model for model in models(engine)}
    if id is None or id == "":
        return next(iter(known.values()))
    if isinstance(id, str):
        name = id.removesuffix(":latest")
        # A router in front may add the owner, as in edge_eft/atlas.
        for candidate in (name, name.rpartition("/")[2]):
            if candidate in known:
                return known[candidate]
    raise ApiError(
        404,
        f"there is no model {id!r:.80}; there are: {', '.join(known)}",
        code="model_not_found",
        param="model",
    )


async def facts_of(engine: Engine, model: NamedModel) -> dict[str, Any]:
    """Return what the engine said of a model; it is loaded for that if it never was."""
    return engine.facts(model.recipe) or await engine.ready(model.recipe)


def file_of(facts: Mapping[str, Any], model: NamedModel) -> dict[str, Any]:
    """Return what a model's file is; the base's stands for an emulation."""
    files: dict[str, dict[str, Any]] = facts["files"]
    return next(file for role, file in files.items() if role.startswith(model.part or "base"))


def role_of(roles: Iterable[str], model: NamedModel) -> str:
    """Return the role that stands for a model: itself if it is one, else the tuned model's.

    Where no tuned one is among them, as under a weight of 0, it is the first.
    """
    roles, side = list(roles), (model.part or "tuned").partition(":")[0]
    if model.part in roles:
        return model.part
    return next((one for one in roles if side in one), roles[0])
