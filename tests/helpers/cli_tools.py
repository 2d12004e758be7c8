"""Calls of the command line, in this process or in one of its own."""

import json
import os
import re
import subprocess
import sys
import time

from click.testing import CliRunner

from edge_eft.cli.main import cli


def invoke(*arguments, stdin=None, environment=None):
    """The result of a call in this process, whatever the width of the terminal around it."""
    columns = {"COLUMNS": os.environ.get("COLUMNS", "100")}
    environment = columns | (environment or {})
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, env=environment)


def complaint(*arguments, stdin=None):
    """The one line on stderr of a call that must fail with status 2."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"edge-eft: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def run_bench(command, family, *arguments):
    """The object on stdout and the table on stderr of a benchmark: ours, or the laboratory's."""
    files = [str(path) for path in family[:3]]
    roles = ["--base", files[0], "--tuned", files[1], "--reference", files[2]]
    result = CliRunner().invoke(command, [*roles, "--threads", "1", *arguments])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def command(setup=""):
    """What starts `edge-eft` in a process of its own, after some Python code."""
    if not setup:
        return [sys.executable, "-m", "edge_eft"]
    return [sys.executable, "-c", f"{setup}\nfrom edge_eft.__main__ import main\nmain()"]


def process(*arguments, stdin=subprocess.DEVNULL, setup="", **options):
    """A call in a process of its own, with its output in pipes."""
    return subprocess.Popen(
        [*command(setup), *map(str, arguments)],
        stdin=stdin,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def wait_for(condition, seconds=20):
    """Return when something has come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
