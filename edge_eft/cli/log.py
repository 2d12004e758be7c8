"""`edge-eft log`: the conversations that chats have kept; lists, shows and deletes them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SessionError
from . import sessions
from .command import OUTPUT, REMOVING, option
from .command import command as new_command
from .options import json_option, yes_option
from .terminal import agreed, counted, dim, one_line, say, style, talk, terminal_width, to_json

if TYPE_CHECKING:
    from .sessions import Session
    from .tables import Listing

_WIDE = 72  # columns, for more than how a conversation begins
_SHOWN = 200  # characters of how it begins


def complete_session(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Return the ids of the conversations that are kept."""
    try:
        names = [path.stem for path in sessions.paths()]
    except SessionError:
        return []
    return [
        click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)
    ]


@new_command("log")
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_session)
@option(
    "--limit",
    "-n",
    type=click.IntRange(1),
    default=20,
    group=OUTPUT,
    metavar="N",
    show_default=True,
    help="List at most N.",
)
@option(
    "--search", group=OUTPUT, metavar="TEXT", help="List those that have this text in a message."
)
@option(
    "--delete",
    is_flag=True,
    group=REMOVING,
    help="Delete the conversations that are named, or --all.",
)
@option(
    "--all", "everything", is_flag=True, group=REMOVING, help="With --delete: all conversations."
)
@yes_option
@json_option
def command(
    ids: tuple[str, ...],
    limit: int,
    search: str | None,
    delete: bool,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List the conversations that `chat` has kept, the last one first, or show the one with ID.

    The beginning of an id is enough, and so are its letters. `edge-eft chat --continue ID` goes on
    with one, and its JSON is a file that /load takes in a chat.

    \b
    Examples:
      edge-eft log
      edge-eft log --search Lima --json
      edge-eft log --delete --all
    """
    if delete:
        _delete(ids, everything=everything, yes=yes)
    elif everything or yes:
        raise click.UsageError("--all and --yes go with --delete.")
    elif not ids:
        _list(search, limit, as_json=as_json)
    elif told := _verb(ids):
        raise click.UsageError(told)
    elif len(ids) > 1 or search is not None:
        raise click.UsageError("One conversation is shown at a time; --search has no ID beside it.")
    else:
        path = _find(ids[0])
        _show(path, sessions.read(path), as_json=as_json)


def _verb(ids: Sequence[str]) -> str:
    """Return what to type for `log delete ID` and the like; "" if it is not that."""
    verb, rest = ids[0], " ".join(map(shlex.quote, ids[1:]))
    ways = {
        **dict.fromkeys(("delete", "remove", "rm"), f"edge-eft log --delete {rest or 'ID'}"),
        **dict.fromkeys(("show", "view", "cat", "open"), f"edge-eft log {rest or 'ID'}"),
        **dict.fromkeys(("search", "find", "grep"), f"edge-eft log --search {rest or 'TEXT'}"),
        **dict.fromkeys(("list", "ls"), "edge-eft log"),
        **dict.fromkeys(("continue", "resume"), f"edge-eft chat --continue {rest}".rstrip()),
        "clear": "edge-eft log --delete --all",
    }
    return f"{verb!r} is not an ID; it is {ways[verb]}" if verb in ways else ""


def _find(word: str) -> Path:
    """Return the file of the conversation that `word` means; SessionError says how to search."""
    try:
        return sessions.find(word)
    except SessionError as error:
        if sessions.matching(word):
            raise
        raise SessionError(
            f"{error}, and edge-eft log --search {shlex.quote(word)} looks into their messages"
        ) from None


def _list(search: str | None, limit: int, *, as_json: bool) -> None:
    problems: list[str] = []
    every = sessions.sessions(sessions.paths(), problems)
    found = list(islice((each for each in every if _has(each[1], search)), limit))
    for problem in problems:
        say(f"edge-eft: {one_line(problem)}", err=True)
    if as_json:
        say(to_json([_about(path, session) for path, session in found]))
    elif found:
        from .console import show

        show(listing(found))
        if sys.stdout.isatty():
            talk(one_line(f"kept in {sessions.directory()}; edge-eft log ID shows one"))
    else:
        what = f"no conversation has {search!r}" if search else "no conversation is kept"
        say(f"edge-eft: {one_line(what)}; `edge-eft chat` begins one", err=True)
    if search and not found:
        raise click.exceptions.Exit(1)


def listing(found: Iterable[tuple[Path, Session]], current: str | None = None) -> Listing:
    """Return a table of conversations, a line for each, in which `current` is marked."""
    from .console import line
    from .tables import Clipped, Column, Listing

    narrow = terminal_width() < _WIDE
    columns = [Column("used"), Column("recipe", least=8), Column("messages", right=True)]
    table = Listing(Column("id"), *([] if narrow else columns), Column("begins", least=8))
    for path, session in found:
        is_current = path.stem == current
        name = line(f"{path.stem} *" if is_current else path.stem, "bold" if is_current else "")
        recipe = Clipped(line(session.recipe), 1)
        about = (line(_when(path)), recipe, line(len(session.turns)))
        begins = Clipped(line(sessions.first_words(session)[:_SHOWN]), 1)
        table.add(name, *(() if narrow else about), begins)
    return table


def _show(path: Path, session: Session, *, as_json: bool) -> None:
    if as_json:
        say(to_json(_about(path, session) | _content(session)))
        return
    head = [path.stem, _when(path), session.recipe]
    head += [f"{name}={value}" for name, value in session.settings.items()]
    say(dim(one_line(" · ".join(head))))
    show_turns(session.system, session.turns)
    if session.cut:
        talk("this reply was cut off")
    if n := session.n_damaged:
        talk(f"{n} damaged {'line of its file is' if n == 1 else 'lines of its file are'} left out")


def show_turns(system: str | None, turns: Sequence[Mapping[str, str]]) -> None:
    """Show what was said, each message under its role."""
    first = [{"role": "system", "content": system}] if system else []
    for turn in [*first, *turns]:
        say()
        say(style(turn["role"], bold=True))
        _say_text(turn["content"].strip())


def _say_text(content: str) -> None:
    if not sys.stdout.isatty():
        say(content)
        return
    from .console import show, text

    show(text(content))


def _about(path: Path, session: Session) -> dict[str, Any]:
    return {
        "id": path.stem,
        "begun": session.begun,
        "used": _used(path).astimezone().isoformat("T", "seconds"),
        "recipe": session.recipe,
        "n_messages": len(session.turns),
        "begins": sessions.first_words(session),
        "path": str(path),
    }


def _content(session: Session) -> dict[str, Any]:
    return {
        "models": session.models,
        "settings": session.settings,
        "system": session.system,
        "messages": session.turns,
        "replies": [{"message": i, **figures} for i, figures in session.figures.items()],
        "cut": session.cut,
        "n_damaged": session.n_damaged,
    }


def _used(path: Path) -> datetime:
    """Return when a file was written last; the last day there is for a clock that ran ahead."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime)
    except (OverflowError, ValueError):
        return datetime(9999, 12, 30)


def _when(path: Path) -> str:
    return f"{_used(path):%Y-%m-%d %H:%M}"


def _has(session: Session, search: str | None) -> bool:
    if search is None:
        return True
    wanted = search.casefold()
    return any(wanted in turn["content"].casefold() for turn in session.turns)


def _delete(ids: Sequence[str], *, everything: bool, yes: bool) -> None:
    from .keeper import delete

    if bool(ids) == everything:
        raise click.UsageError("--delete takes the ids of conversations, or --all.")
    paths = sessions.paths() if everything else [*dict.fromkeys(map(sessions.find, ids))]
    n = len(paths)
    what = counted(n, "conversation")
    if n and not yes:
        names = "" if everything else f" ({', '.join(path.stem for path in paths)})"
        answer = agreed(f"Delete {what}{names}?")
        if answer is None:
            raise click.UsageError(
                "Without a terminal nothing is asked; --yes deletes without asking."
            )
        if not answer:
            raise click.exceptions.Exit(1)
    problems = []
    for path in paths:
        try:
            delete(path)
        except SessionError as error:
            problems.append(error)
            n -= 1
    say(f"deleted {counted(n, 'conversation')}")
    if problems:
        raise SessionError("; ".join(map(str, problems)))
