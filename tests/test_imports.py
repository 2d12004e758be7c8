"""Who may import whom: the modules of edge_eft form rooms, and the arrows between them run down.

Every import is read from the source, also those inside functions and for type checkers. What a
module loads when it is imported is looked at in child processes.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edge_eft

PACKAGE = Path(edge_eft.__file__).parent

# room → the rooms that it may import; a module at the top of the package is a room of its own.
# All may import themselves.
MAY_IMPORT = {
    "errors": set(),
    "system": set(),
    "child": set(),
    "llama_build": set(),
    "validate": {"errors"},
    "text": {"errors", "validate"},
    "logits": {"errors", "validate"},
    "files": {"errors", "validate", "system", "text"},
    "match": {"errors", "validate", "system", "text", "files"},
    "backend": {"errors", "files"},
    "engine": {"errors", "validate", "system", "text", "logits", "files", "backend"},
    "evaluate": {"errors", "validate", "text", "files", "logits", "engine"},
    "convert": {"errors", "validate", "system", "child", "text", "logits", "files", "backend"},
    # The HTTP process: of the engine plain data alone, and no native code (tested below).
    "server": {"errors", "validate", "child", "text", "logits", "engine"},
    "bench": {"errors", "text", "logits", "files", "backend", "engine", "evaluate"},
    "cli": {
        *("errors", "validate", "system", "child", "text", "logits", "files", "backend"),
        *("match", "engine", "evaluate", "convert", "bench", "server", "llama_build"),
    },
    "": {"errors", "engine", "logits"},  # __init__: the public names
    "__main__": {"cli"},
}
# Who may open a socket, or import what does; cli/replies has a pair of them to wake a thread.
NETWORK = {
    "socket",
    "httpx2",
    "http",
    "urllib",
    "huggingface_hub",
    "requests",
    "httpx",
    "starlette",
    "uvicorn",
}
MAY_OPEN = {"files.hub", "cli.replies"}


def modules():
    """Dotted name below edge_eft → path, of every module."""
    paths = [
        path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "models"
    ]
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    return dict(
        zip((name.removesuffix("__init__").strip(".") for name in names), paths, strict=True)
    )


def imports(name, path):
    """Absolute dotted names of what a module imports, wherever in it."""
    is_package = path.name == "__init__.py"
    here = ["edge_eft", *filter(None, name.split("."))]
    base = here if is_package else here[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            start = [*above, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*start, alias.name]) for alias in node.names)


def room_of(name):
    return name.partition(".")[0]


MODULES = modules()
IMPORTS = {name: sorted(set(imports(name, path))) for name, path in MODULES.items()}


def test_every_room_is_named():
    assert {room_of(name) for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name):
    room = room_of(name)
    own = (
        target.removeprefix("edge_eft").strip(".")
        for target in IMPORTS[name]
        if target.startswith("edge_eft")
    )
    assert "edge_eft" not in IMPORTS[name], "the package's face is for others"
    reached = {room_of(target) for target in own if target}
    assert reached <= MAY_IMPORT[room] | {room}


def test_only_the_backend_imports_llama_cpp():
    importers = {
        name
        for name, found in IMPORTS.items()
        if any(t.split(".")[0] == "llama_cpp" for t in found)
    }
    assert {room_of(name) for name in importers} == {"backend"}


def test_only_the_named_modules_may_open_a_socket():
    importers = {
        name
        for name, found in IMPORTS.items()
        if NETWORK & {t.split(".")[0] for t in found if not t.startswith("urllib.parse")}
    }
    assert {name for name in importers if room_of(name) != "server"} <= MAY_OPEN


HEAVY = ("numpy", "llama_cpp", "jinja2", "prompt_toolkit", "huggingface_hub")


def loaded_by(code, **environment):
    """Which heavy packages a fresh interpreter has loaded after `code`, and its exit status."""
    seen = f"[name for name in {HEAVY!r} if name in sys.modules]"
    script = (
        f"import atexit, sys\natexit.register(lambda: print({seen}, file=sys.stderr))\n{code}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    return done.stderr.strip().splitlines()[-1], done


def command(*words):
    return f"sys.argv = ['edge-eft', *{words!r}]\nfrom edge_eft.cli.main import main\nmain()"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("chat", "--help"),
        ("convert", "--help"),
        ("bench", "--help"),
        ("list", "--help"),
        ("log", "--help"),
        ("log", "nope"),
        ("verify", "--help"),
        ("rm", "--help"),
        ("pull", "--help"),
        ("pull", "--base", "x"),
        ("doctor", "--help"),
        ("match", "--help"),
        ("match", "--trio", "1"),
        ("serve", "--help"),
        ("serve", "--no-such-option"),
        ("show", "--no-such-option"),
        ("no-such-command",),
        ("run",),
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_load_nothing_heavy(words):
    heavy, done = loaded_by(command(*words))
    assert heavy == "[]"
    assert done.returncode in (0, 2)
    assert done.stdout or "edge-eft: " in done.stderr


def test_completion_loads_nothing_heavy():
    environment = {"COMP_WORDS": "edge-eft run --al", "COMP_CWORD": "2"}
    heavy, done = loaded_by(command(), _EDGE_EFT_COMPLETE="bash_complete", **environment)
    assert heavy == "[]"
    assert "--alpha" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy, _ = loaded_by(
        "import edge_eft; edge_eft.EdgeEftError, edge_eft.Weights, edge_eft.Request, edge_eft.Step"
    )
    assert heavy == "[]"


def test_the_http_process_loads_no_native_code():
    heavy, _ = loaded_by("import edge_eft.server.app")
    assert heavy == "['jinja2']" or heavy == "[]"


def test_every_public_name_is_there():
    for name in edge_eft.__all__:
        assert getattr(edge_eft, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edge_eft.nothing
