"""`chat --continue`: which conversation goes on, and with which models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError, SessionError
from . import sessions
from .models import Models
from .options import is_typed
from .terminal import counted, one_line, talk

if TYPE_CHECKING:
    from ..files.recipe import Recipe
    from .conversation import Conversation
    from .keeper import Keeper
    from .sessions import Session

NEWEST = "newest"  # --continue without an id
_FILES = ("base", "tuned", "reference", "lora")
_NOT_KEPT = ("threads", "gpu_layers", "default", "assumed")  # the machine's or the user's
_SHOWN = 800  # characters of each of the last turns


def named_models(models: Models, words: Sequence[str], recipe: str = "") -> dict[str, Any]:
    """Return what names the models of a chat, and says how they are told and loaded.

    Args:
        recipe: which is meant where neither words nor options name one.
    """
    from ..files.recipe import absolute
    from ..files.recipe_names import list_recipes, named

    given = {f.name: getattr(models, f.name) for f in fields(models)}
    about = {k: v for k, v in given.items() if v is not None and k not in _NOT_KEPT}
    about |= {role: str(absolute(about[role])) for role in _FILES if role in about}
    word = about.pop("model", words[0] if words else None)
    if word is not None:
        known = named(word.replace(":", "-"), list_recipes()) is not None
        about["recipe"] = word if known else str(absolute(word))
    elif models.tuned is None and models.reference is None and recipe:
        about["recipe"] = recipe
    return about


def resume(
    wish: str, models: Models, words: tuple[str, ...], keeper: Keeper
) -> tuple[Session, Models, tuple[str, ...]]:
    """Return the conversation that is to go on, and the models that it goes on with.

    Args:
        wish: an id, the beginning of one, or NEWEST.
        models, words: of the command line. What they name overrides the conversation's own.

    Raises SessionError if there is none.
    """
    names_models = bool({"recipe", *_FILES[1:]} & named_models(models, words).keys())
    if wish == NEWEST:
        wanted = _identity(named_models(models, words)) if names_models else None
        path = sessions.newest(
            lambda session: wanted is None or _identity(session.models) == wanted
        )
        if path is None:
            of = f" with {words[0]}" if words else " with these models" if names_models else ""
            raise SessionError(f"no conversation{of} is kept; leave out --continue to begin one")
    else:
        path = _find(wish, words)
    session = keeper.resume(path)
    if names_models:
        return session, models, words
    known = {f.name for f in fields(models)}
    own = {
        name: value
        for name, value in session.models.items()
        if name in known and getattr(models, name) is None and _is_option(name, value)
    }
    recipe = session.models.get("recipe")
    return session, replace(models, **own), (recipe,) if isinstance(recipe, str) else ()


def recipe_of(session: Session | None, models: Models, words: tuple[str, ...]) -> Recipe:
    """Return the recipe of a chat. What is gone of a session's is said with the session's name."""
    try:
        return models.recipe(words, at_most=0)[0]
    except RecipeError as error:
        if session is None:
            raise
        again = f"edge-eft chat RECIPE --continue {session.id} takes another"
        raise SessionError(f"{session.id} was with {session.recipe}: {error}; {again}") from None


def conversation(
    session: Session, deltas: Mapping[str, float], settings: Mapping[str, Any], system: str | None
) -> Conversation:
    """Return the conversation of a session as it goes on.

    Args:
        deltas: of the recipe.
        settings, system: of the options. What is on the command line overrides the session's, and
            that overrides what is configured.

    Raises RequestError if the settings do not suit the recipe.
    """
    from .conversation import Conversation

    typed = {name: value for name, value in settings.items() if is_typed(name)}
    system = system if is_typed("system") or session.system is None else session.system
    return Conversation(deltas, {**settings, **session.settings, **typed}, system, session.turns)


def tell(session: Session, recipe: str) -> None:
    """Say that a conversation goes on, what its last words were, and what is wrong with it."""
    from .conversation import in_words

    n = len(session.turns)
    was = f" (it was with {session.recipe})" if session.recipe != recipe else ""
    parts = [counted(n, "message")]
    parts += [f"{name} {in_words(v)}" for name, v in session.settings.items()]
    parts += ["a system message"] if session.system else []
    talk(one_line(f"{session.id} goes on with {recipe}{was}: {', '.join(parts)}"))
    if session.n_damaged:
        lines = "a line" if session.n_damaged == 1 else f"{session.n_damaged} lines"
        talk(f"{lines} of its file cannot be read and is left out")
    asked = [i for i, turn in enumerate(session.turns) if turn["role"] == "user"]
    for turn in session.turns[asked[-1] if asked else -1 :]:
        text = turn["content"].strip()
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()} …"
        talk(f"› {shown}" if turn["role"] == "user" else shown)
    if session.cut:
        talk("this reply was cut off; /regenerate draws it anew")
    elif session.turns and session.turns[-1]["role"] == "user":
        talk("this has no reply yet; /regenerate draws one")


def _find(wish: str, words: tuple[str, ...]) -> Any:
    from ..files.recipe_names import list_recipes, named

    try:
        return sessions.find(wish)
    except SessionError as error:
        if words or named(wish, list_recipes()) is None:
            raise
        right = f"edge-eft chat {wish} --continue"
        raise SessionError(f"{error}; a recipe comes first: {right}") from None


def _identity(models: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in models.items() if name in ("recipe", *_FILES)}


def _is_option(name: str, value: Any) -> bool:
    return isinstance(value, int if name == "n_ctx" else str)
