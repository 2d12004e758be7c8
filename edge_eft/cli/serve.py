"""`edge-eft serve`: recipes behind the HTTP interfaces that programs know."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import stat
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import RecipeError, ServerError
from ..files.plain_text import reason
from .command import ACCESS, LISTENING, option
from .command import command as new_command
from .completion import complete_here
from .models import Models
from .options import model_options, slots_option
from .terminal import say, talk, to_json

if TYPE_CHECKING:
    from ..files.recipe import Recipe
    from ..server.options import ServeOptions
    from ..server.served import ServedRecipe

_KEY_VARIABLE = "EDGE_EFT_API_KEY"
_MAX_KEY_FILE = 64 << 10  # bytes
_KEY = re.compile(r"[!-~]{1,512}")  # what a header can carry
_NO_ORIGIN = "--cors {!r:.80} is not an origin; take SCHEME://HOST[:PORT], without a path."
_NO_HOST = "--allow-host {!r:.80} is not a host's name or address."
_QUESTION = "What is the capital of Peru?"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType):
    """Seconds, or a number with s, m, h or d; 0 is at once, and never (or -1) is None."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip().lower() in ("-1", "never"):
            return -1.0
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)", value.strip().lower())
        if found is None:
            self.fail(f"{value!r:.40}, not a duration; take 5m, 300s, 0 or never", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@new_command("serve")
@click.argument("words", nargs=-1, metavar="[RECIPE]…", shell_complete=complete_here)
@model_options
@option(
    "--host",
    key=True,
    group=LISTENING,
    default="127.0.0.1",
    show_default=True,
    metavar="H",
    help="Address to listen at; 0.0.0.0: all of this machine's.",
)
@option(
    "--port",
    key=True,
    group=LISTENING,
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="P",
    help="Port to listen at; 0 takes any free one.",
)
@option("--open", "opens", group=LISTENING, is_flag=True, help="Open the page in a browser.")
@option("--api-key", group=ACCESS, metavar="K", help="Key that clients must send; `ps` shows it.")
@option(
    "--api-key-file",
    group=ACCESS,
    metavar="F",
    help="File with such keys, one a line; chmod 600 it.",
)
@option("--no-api-key", group=ACCESS, is_flag=True, help="Ask for no key, even of other machines.")
@slots_option("Requests that are answered together.")
@option(
    "--queue",
    key=True,
    group=LISTENING,
    type=click.IntRange(0, 10_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests that may wait; more are refused.",
)
@option(
    "--keep-alive",
    key=True,
    group=LISTENING,
    type=Duration(),
    default="5m",
    show_default=True,
    metavar="T",
    help="Unload after T (90s, 5m, 1h, never) without requests.",
)
@option(
    "--cors",
    multiple=True,
    key=True,
    group=ACCESS,
    metavar="ORIGIN",
    help="Let web pages of ORIGIN in; * is all.",
)
@option("--max-deaths", type=click.IntRange(1), default=3, hidden=True)
@option(
    "--allow-host",
    multiple=True,
    key=True,
    group=ACCESS,
    metavar="H",
    help="A further host name that clients may use.",
)
def command(
    models: Models,
    words: tuple[str, ...],
    host: str,
    port: int,
    opens: bool,
    api_key: str | None,
    api_key_file: str | None,
    no_api_key: bool,
    slots: int,
    queue: int,
    keep_alive: float,
    cors: tuple[str, ...],
    allow_host: tuple[str, ...],
    max_deaths: int,
) -> None:
    """Serve recipes to browsers, and to programs that speak OpenAI's, Anthropic's or Ollama's way.

    What to enter in them is printed when the first recipe is loaded; the address alone, where the
    page is, goes to stdout. Models are named as the recipes: atlas, and atlas:base, atlas:tuned for
    one alone. Where other machines can connect, a key is needed, by an option or the variable
    EDGE_EFT_API_KEY.

    \b
    Examples:
      edge-eft serve atlas --open
      edge-eft serve atlas atlas-down --port 0 --slots 8
      edge-eft serve atlas --host 0.0.0.0 --api-key-file key.txt
      edge-eft serve atlas --port 11434       # where programs look for Ollama
    """
    _check_extra()
    from ..server.guard import host_name, origin_of
    from ..server.options import ServeOptions

    keys = _keys(api_key, api_key_file, no_api_key)
    _check_host(host, has_key=bool(keys) or no_api_key)
    options = ServeOptions(
        recipes=_served(models, words),
        host=host,
        port=port,
        api_keys=keys,
        slots=slots,
        queue=queue,
        keep_alive=None if keep_alive < 0 else keep_alive,
        origins=_read(cors, origin_of, _NO_ORIGIN),
        hosts=_read(allow_host, host_name, _NO_HOST),
        n_ctx=models.n_ctx,
        threads=models.threads,
        gpu_layers=models.gpu_layers,
        max_deaths=max_deaths,
    )
    from ..server.app import serve

    key = _in_a_shell(api_key, api_key_file) if keys else None

    def ready(url: str) -> None:
        _introduce(url, options, key)
        if opens:
            threading.Thread(target=_open, args=(url,), daemon=True).start()

    serve(options, ready)


def _open(url: str) -> None:
    """Open the page in a browser, of which some return when they are closed."""
    import webbrowser  # it looks for browsers on the PATH

    if not webbrowser.open(url):
        talk(f"no browser can be opened here; the page is at {url}")


def _introduce(url: str, options: ServeOptions, key: str | None) -> None:
    """Print the address, which is data, and say what to enter in clients, and one example."""
    say(url)
    names = [recipe.name for recipe in options.recipes]
    talk(f"serving {', '.join(names)}; Ctrl-C ends it")
    talk(f"to talk to {'them' if names[1:] else 'it'} in a browser: {url}")
    talk(f"to enter in clients, with {'your' if key else 'any'} key:")
    talk(f"  OpenAI-compatible  {url}/v1")
    talk(f"  Ollama, Anthropic  {url}")
    if options.host in ("0.0.0.0", "::"):
        port = url.rpartition(":")[2]
        talk(f"  other machines     http://{platform.node()}:{port}, or the IP address")
    asked = {"model": names[0], "messages": [{"role": "user", "content": _QUESTION}]}
    body = shlex.quote(to_json(asked))
    shown = f' -H "Authorization: Bearer {key}"' if key else ""
    talk("to try it:")
    talk(f"curl {url}/v1/chat/completions{shown} -H 'Content-Type: application/json' -d {body}")


def _in_a_shell(key: str | None, file: str | None) -> str:
    """Return what a shell is told to put for the key, which is never shown."""
    if file is not None:
        return f"$(head -n 1 {shlex.quote(file)})"
    return "KEY" if key is not None else f"${_KEY_VARIABLE}"


def _check_host(host: str, *, has_key: bool) -> None:
    """Raise UsageError if others could connect to `host` and nobody has thought of a key."""
    from ..server.guard import is_loopback

    if not host.strip():
        raise click.UsageError("--host is empty; give an address, as 127.0.0.1 or 0.0.0.0.")
    if not (is_loopback(host.lower()) or has_key):
        raise click.UsageError(
            f"--host {host} lets other machines in: give --api-key-file or {_KEY_VARIABLE}, or "
            "say --no-api-key."
        )


def _read(given: Sequence[str], read: Callable[[str], str | None], wrong: str) -> tuple[str, ...]:
    """Return what `read` makes of each word; raise UsageError where it makes nothing."""
    for word in given:
        if read(word) is None:
            raise click.UsageError(wrong.format(word))
    return tuple(filter(None, map(read, given)))


def _check_extra() -> None:
    """Raise ServerError if the extra is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ServerError(
            f"serve needs {' and '.join(missing)}; pip install 'edge-eft[serve]' adds what it takes"
        )


def _served(models: Models, words: Sequence[str]) -> tuple[ServedRecipe, ...]:
    """Return what is served, each recipe with its files looked at."""
    from ..files.recipe_toml import to_toml
    from ..server.served import ServedRecipe

    several = len(words) > 1
    if several and any((models.base, models.tuned, models.reference, models.lora, models.format)):
        raise click.UsageError(
            "--base, --tuned, --reference, --lora and --format go with one recipe; "
            f"{len(words)} are named."
        )
    named = [[word] for word in words] if several else [words]
    recipes = [models.recipe(each, at_most=0)[0] for each in named]
    served: dict[str, ServedRecipe] = {}
    for recipe in recipes:
        if recipe.name in served:
            raise RecipeError(
                f"two recipes are named {recipe.name!r}; clients could not tell which they mean"
            )
        _check_files(recipe)
        served[recipe.name] = ServedRecipe(
            recipe.name,
            to_toml(recipe, os.devnull),  # no file is below a device: the paths are absolute
            path=str(recipe.path or recipe.name),
            description=recipe.description,
            parts=_parts(recipe),
        )
    return tuple(served.values())


def _parts(recipe: Recipe) -> tuple[str, ...]:
    """Return the models of a recipe that clients can use by themselves, by their short names."""
    active = [delta.name for delta in recipe.deltas.values() if delta.weight]
    names = ["tuned"] if len(active) == 1 else []
    names += [f"tuned:{name}" for name in recipe.deltas if names == [] or name not in active]
    return ("base", *names)


def _check_files(recipe: Recipe) -> None:
    """Raise an EdgeEftError if a model is missing, or its header shows that it cannot be run."""
    from ..files import memory
    from ..files.pulled import check_here, told_to_pull

    check_here(recipe)
    with told_to_pull(recipe):
        memory.headers(recipe.roles())


# -- keys ----------------------------------------------------------------------------------


def _keys(key: str | None, file: str | None, none: bool) -> tuple[str, ...]:
    """Return the keys that clients are asked for, from the one place that is given."""
    given = [name for name, value in (("--api-key", key), ("--api-key-file", file)) if value]
    if key == "" or file == "":
        raise click.UsageError("--api-key and --api-key-file take a value that is not empty.")
    if len(given) + none > 1:
        names = [*given, "--no-api-key"][:2] if none else given
        raise click.UsageError(f"{' and '.join(names)} exclude each other.")
    if none:
        return ()
    if file is not None:
        return _keys_of(file)
    named = "--api-key"
    if key is None:
        key, named = os.environ.get(_KEY_VARIABLE), _KEY_VARIABLE
    return (_checked(key, named),) if key else ()


def _checked(key: str, where: str) -> str:
    if not _KEY.fullmatch(key):
        raise ServerError(
            f"the key of {where} cannot be sent in a header; take up to 512 letters, digits and "
            "signs of ASCII, without spaces"
        )
    return key


def _keys_of(file: str) -> tuple[str, ...]:
    """Return the keys in a file, which nobody but its owner may read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ServerError(f"{file}: is not a file; --api-key-file takes one with a key")
            if os.name == "posix" and about.st_mode & 0o077:
                raise ServerError(
                    f"{file}: others may use it (mode {about.st_mode & 0o777:04o}), and the key is "
                    f"a secret; chmod 600 {file}"
                )
            data = opened.read(_MAX_KEY_FILE)
    except OSError as error:
        raise ServerError(
            f"{file}: cannot be read ({reason(error)}); it is to hold a key"
        ) from None
    lines = [line.strip() for line in data.decode("ascii", "replace").splitlines()]
    keys = tuple(_checked(line, file) for line in lines if line)
    if not keys:
        raise ServerError(f"{file}: holds no key; write one into it, on a line of its own")
    return keys
