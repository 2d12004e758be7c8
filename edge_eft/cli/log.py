"""`edge-eft log`: the conversations that chats have kept; lists, shows and deletes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SessionError
from . import sessions
from .command import command as new_command
from .options import json_option
from .terminal import agreed, compose, one_line, say, style, talk, to_json

if TYPE_CHECKING:
    from .sessions import Session


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
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(1),
    default=20,
    metavar="N",
    show_default=True,
    help="List at most so many.",
)
@click.option("--search", metavar="TEXT", help="List those that have this text in a message.")
@click.option("--delete", is_flag=True, help="Delete the conversations named, or --all of them.")
@click.option("--all", "everything", is_flag=True, help="With --delete.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
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
    elif len(ids) > 1 or search is not None:
        raise click.UsageError("One conversation is shown at a time; --search has no ID beside it.")
    else:
        path = sessions.find(ids[0])
        _show(path, sessions.read(path), as_json=as_json)


def _list(search: str | None, limit: int, *, as_json: bool) -> None:
    problems: list[str] = []
    every = sessions.sessions(sessions.paths(), problems)
    found = list(islice((each for each in every if _has(each[1], search)), limit))
    for problem in problems:
        say(f"edge-eft: {one_line(problem)}", err=True)
    if as_json:
        say(to_json([_about(path, session) for path, session in found]))
    elif found:
        _table(found)
        if sys.stdout.isatty():
            talk(one_line(f"kept in {sessions.directory()}; edge-eft log ID shows one"))
    else:
        what = f"no conversation has {search!r}" if search else "no conversation is kept"
        say(f"edge-eft: {one_line(what)}; `edge-eft chat` begins one", err=True)
    if search and not found:
        raise click.exceptions.Exit(1)


def _table(found: Sequence[tuple[Path, Session]]) -> None:
    from rich.table import Table

    from .console import console, show, text

    narrow = console().width < 60
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    table.add_column("id", no_wrap=True)
    if not narrow:
        table.add_column("used", no_wrap=True)
        table.add_column("recipe", no_wrap=True, max_width=24, overflow="ellipsis")
        table.add_column("messages", justify="right")
    table.add_column("begins", ratio=1, no_wrap=True, overflow="ellipsis")
    for path, session in found:
        n = str(len(session.turns))
        more = () if narrow else (text(_when(path)), text(one_line(session.recipe)), text(n))
        table.add_row(text(path.stem), *more, text(one_line(sessions.first_words(session))))
    show(table)


def _show(path: Path, session: Session, *, as_json: bool) -> None:
    if as_json:
        say(to_json(_about(path, session) | _content(session)))
        return
    head = [path.stem, _when(path), session.recipe]
    head += [f"{name}={value}" for name, value in session.settings.items()]
    say(style(one_line(" · ".join(head)), dim=True))
    system = [{"role": "system", "content": session.system}] if session.system else []
    for turn in [*system, *session.turns]:
        say()
        say(compose(style(turn["role"], bold=True)))
        _say_text(turn["content"].strip())
    if session.cut:
        talk("this reply was cut off")
    if n := session.n_damaged:
        talk(f"{n} damaged {'line of its file is' if n == 1 else 'lines of its file are'} left out")


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
    what = "1 conversation" if n == 1 else f"{n} conversations"
    if n and not yes:
        names = "" if everything else f" ({', '.join(path.stem for path in paths)})"
        answer = agreed(f"Delete {what}{names}?")
        if answer is None:
            raise click.UsageError("Nobody can be asked here; --yes deletes without asking.")
        if not answer:
            raise click.exceptions.Exit(1)
    problems = []
    for path in paths:
        try:
            delete(path)
        except SessionError as error:
            problems.append(error)
            n -= 1
    say("deleted 1 conversation" if n == 1 else f"deleted {n} conversations")
    if problems:
        raise SessionError("; ".join(map(str, problems)))
