"""The real server over an engine whose replies are written down, and what can happen to it."""

import contextlib
import json
import os
from pathlib import Path
from unittest.mock import patch

import psutil

from edge_eft.child import Child
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml
from edge_eft.server import process
from edge_eft.server.app import create_app
from edge_eft.server.options import ServeOptions
from edge_eft.server.served import ServedRecipe

from .http_server import serving, until

ATLAS = ServedRecipe(
    "atlas",
    to_toml(load_recipe("atlas"), os.devnull),
    "atlas.toml",
    parts=("base", "tuned", "tuned:brief", "tuned:discreet"),
)
TESTS = str(Path(__file__).parents[1])


class ScriptedServer:
    """A server that runs.

    Attributes:
        url: where.
        live: see `http_server`.
    """

    def __init__(self, live, folder):
        self.live, self._folder = live, folder
        self.url = f"http://127.0.0.1:{live.port}"

    def hold_at(self, n_tokens):
        """Let the engine stand still once a reply has so many tokens; None: let it go on."""
        new = self._folder / "gate.new"
        new.write_text("" if n_tokens is None else str(n_tokens))
        new.replace(self._folder / "gate")

    def hold_loading(self, hold):
        """Let whatever loads the models from now on stand still in mid-file, or go on."""
        (self._folder / "loading").touch() if hold else (self._folder / "loading").unlink()

    def cut(self):
        """Cut every connection, in mid-reply too, as a network does."""
        server = self.live.server
        loop = next(iter(server.servers)).get_loop()
        for connection in list(server.server_state.connections):
            loop.call_soon_threadsafe(connection.transport.abort)

    def kill_engine(self):
        """Kill the engine's process, which the server starts again."""
        self.engine().kill()

    def engine(self):
        """The engine's process."""
        children = psutil.Process().children(recursive=True)
        return next(p for p in children if str(self._folder) in " ".join(p.cmdline()))


@contextlib.contextmanager
def scripted(texts, folder, *, port=0, hold_loading=False, **options):
    """Serve an engine whose replies are these texts; one such server at a time.

    Args:
        texts: which one a reply is, the number in the last message says, and else it is the first.
            Without any, the models say what they say.
        folder: an empty one, for the script.
        port: of one that was there before; else it is any.
        hold_loading: it stands still in mid-load, see `ScriptedServer.hold_loading`.
        options: of `ServeOptions`.
    """
    (folder / "texts.json").write_text(json.dumps(list(texts)), "utf-8")
    app = create_app(ServeOptions((ATLAS,), **{"n_ctx": 4096, **options}))

    def child(words, environment):
        path = os.pathsep.join([environment["PYTHONPATH"], TESTS])
        words = ["-m", "helpers.scripted_host", str(folder)]
        return Child(words, {**environment, "PYTHONPATH": path})

    with patch.object(process, "Child", child), serving(app, port=port) as live:
        server = ScriptedServer(live, folder)
        server.hold_at(None)
        if hold_loading:
            server.hold_loading(True)
        assert until(lambda: live.ask("/health")[0] == 200 or hold_loading, 60)
        yield server
