"""Every command but `pull` works where no connection can be made, and tries to make none."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.cli_tools import process

from edge_eft.cli.main import Commands
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml

# Imported by every Python that is started, children of children as well: a connection, or the
# look-up of a host, is written down and fails.
_NO_NETWORK = """
import os, sys

def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(arguments[1], (str, bytes)):  # a socket of this machine has a path
            return
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    with open(os.environ["TRIED"], "a") as log:
        print(event, arguments[1:], sys.argv, file=log)
    raise OSError(101, "Network is unreachable")

sys.addaudithook(hook)
"""
_SIDES = "--reference {atlas}/reference.gguf --tuned {atlas}/brief.gguf"
COMMANDS = {
    "demo": "atlas --questions 4",
    "run": "atlas Hello --max-tokens 4",
    "chat": "atlas",
    "compare": "atlas Hello --max-tokens 4",
    "inspect": "atlas Hello --max-tokens 4 --html -",
    "list": "",
    "show": "qwen3-8b",
    "match": "{atlas} --write found",
    "new": "ours --base {atlas}/base.gguf --no-measure " + _SIDES,
    "verify": "atlas",
    "remove": "mine --yes",
    "convert": f"{_SIDES} --type q4_0 --allow-requantize --quiet --out {{home}}/out",
    "log": "",
    "doctor": "",
    "config": "",
    "completion": "bash",
    "bench": "atlas --rounds 1 --tokens 2",
    "serve": "atlas --port 0",
}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A home, and the environment of a process there that reaches nothing."""
    home = tmp_path_factory.mktemp("offline")
    (home / "sitecustomize.py").write_text(_NO_NETWORK)
    own = home / "own" / "recipes"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text(to_toml(load_recipe("atlas"), own))
    path = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
    return home, {
        **os.environ,
        "PYTHONPATH": path,
        "TRIED": str(home / "tried"),
        "HF_HOME": str(home / "hf"),
        "EDGE_EFT_HOME": str(home / "own"),
        "EDGE_EFT_CACHE": str(home / "cache"),
    }


def test_every_command_but_pull_is_tried_here():
    assert {*COMMANDS, "pull"} == set(Commands.lazy)


def test_a_connection_is_seen(offline):
    """Else the others would prove nothing."""
    home, environment = offline
    child = process("pull", "qwen3-8b", env=environment)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "cannot be reached" in err
    assert (home / "tried").read_text().startswith("socket.getaddrinfo")
    (home / "tried").unlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works_and_connects_to_nothing(command, offline, atlas):
    home, environment = offline
    folder = Path(atlas.base).parent
    words = COMMANDS[command].format(atlas=folder, home=home).split()
    child = process(command, *words, env=environment, stdin=subprocess.DEVNULL)
    if command == "serve":  # it has loaded its models when it says where it is
        assert "http://127.0.0.1:" in child.stdout.readline()
        child.terminate()
    out, err = child.communicate(timeout=100)
    assert not (home / "tried").exists(), (home / "tried").read_text()
    assert child.returncode == 0, err
    assert out or command in ("chat", "convert", "log", "serve")
    assert "Traceback" not in err
