"""A program in a terminal of tmux, as a person has it: keys go in, and what is shown comes out."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import psutil
import pytest

_OPTIONS = """
set -g default-terminal screen-256color
set -g history-limit 5000
set -g status off
set -s escape-time 0
"""
_TOOK = re.compile(r"\d+ tokens?( ·.*)?")  # what a reply took
_TESTS = Path(__file__).parents[1]
# The command line with an emulator that gives these replies.
_SCRIPTED = (sys.executable, "-m", "helpers.paced_chat")


class Tmux:
    """One program in one window, on a server of its own; a context manager.

    Args:
        words: the program and its arguments.
        environment: more of it, for the program.
    """

    def __init__(self, words, columns=100, rows=30, environment=None):
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        self.columns, self.rows = columns, rows
        self._folder = tempfile.mkdtemp(prefix="tmux-")  # a socket's path must be short
        self._words, self._environment = words, environment or {}

    def __enter__(self):
        options = Path(self._folder, "options")
        options.write_text(_OPTIONS)
        path = os.pathsep.join([str(_TESTS.parent), str(_TESTS)])
        more = {"PYTHONPATH": path, "NO_COLOR": "", "EDITOR": "", "VISUAL": "", **self._environment}
        own_size = ("env", "-u", "COLUMNS", "-u", "LINES")
        settings = (f"{name}={value}" for name, value in more.items())
        program = shlex.join([*own_size, *settings, *self._words])
        command = f"(sh -c 'echo $PPID' > pid; exec {program}); echo $? > end; mv end status; cat"
        size = ("-x", str(self.columns), "-y", str(self.rows))
        self._call("-f", str(options), "new-session", "-d", "-c", self._folder, *size, command)
        return self

    def __exit__(self, *_):
        subprocess.run(self._command("kill-server"), capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _command(self, *words):
        return ["tmux", "-S", f"{self._folder}/socket", *words]

    def _call(self, *words, **options):
        environment = {k: v for k, v in os.environ.items() if k != "TMUX"}
        done = subprocess.run(
            self._command(*words),
            env={**environment, "LC_ALL": "C.UTF-8"},
            text=True,
            capture_output=True,
            timeout=30,
            check=True,
            **options,
        )
        return done.stdout

    def type(self, text):
        """Type a line and Enter."""
        self._call("send-keys", "-l", text)
        self.press("Enter")

    def press(self, *keys):
        """Press keys by tmux's names: C-c, Enter, Up …"""
        self._call("send-keys", *keys)

    def paste(self, text):
        """Paste as a terminal does that brackets what is pasted, if the program wants that."""
        self._call("load-buffer", "-", input=text)
        self._call("paste-buffer", "-p", "-r")

    def resize(self, columns):
        """Change the width. tmux tells the program a moment later."""
        self._call("resize-window", "-x", str(columns))
        terminal = self._call("display-message", "-p", "#{pane_tty}").strip()
        with open(terminal) as opened:
            while os.get_terminal_size(opened.fileno()).columns != columns:
                time.sleep(0.02)

    def text(self):
        """All that was shown, with what has scrolled away, but not what a reply took.

        What the terminal wrapped is one line; blanks at the ends of lines are not there.
        """
        shown = self._call("capture-pane", "-p", "-J", "-S", "-")
        lines = map(str.rstrip, shown.rstrip().split("\n"))
        return "\n".join(line for line in lines if not _TOOK.fullmatch(line))

    def shows(self, expected, seconds=30):
        """Wait until exactly this is shown, and fail if it does not come."""
        limit = time.monotonic() + seconds
        while (shown := self.text()) != expected and time.monotonic() < limit:
            time.sleep(0.02)
        assert shown == expected, f"{shown}\n--- instead of\n{expected}"

    def wait_for(self, end, seconds=30):
        """Wait until what is shown ends in `end`, and return it."""
        return self.wait_until(lambda shown: shown.endswith(end), seconds)

    def wait_until(self, is_there, seconds=30):
        """Wait until `is_there` is true of what is shown, and return that."""
        limit = time.monotonic() + seconds
        while not is_there(shown := self.text()):
            assert time.monotonic() < limit, shown
            time.sleep(0.02)
        return shown

    def kill(self):
        """End the program, and its children before it, as `kill -9` does."""
        program = psutil.Process(int(Path(self._folder, "pid").read_text()))
        for process in (*program.children(recursive=True), program):
            process.kill()

    def signal(self, number):
        """Send the program a signal; SIGKILL ends it as `kill -9` does."""
        os.kill(int(Path(self._folder, "pid").read_text()), number)

    def echoes(self, echo=None):
        """Return whether the terminal shows what is typed; `echo` changes that first."""
        with open(self._call("display-message", "-p", "#{pane_tty}").strip()) as opened:
            settings = termios.tcgetattr(opened)
            if echo is not None:
                settings[3] = settings[3] | termios.ECHO if echo else settings[3] & ~termios.ECHO
                termios.tcsetattr(opened, termios.TCSANOW, settings)
            return bool(settings[3] & termios.ECHO)

    def exit_status(self, seconds=30):
        """Wait for the program's end, and return its exit status."""
        limit, status = time.monotonic() + seconds, Path(self._folder, "status")
        while not status.exists():
            assert time.monotonic() < limit, self.text()
            time.sleep(0.02)
        return int(status.read_text())


def scripted_chat(recipe, folder, replies, *options, columns=100, rows=30, environment=None):
    """The chat with an emulator that gives these replies; `go` lets one go on that has <wait>."""
    script = Path(folder, "replies")
    script.write_text("\0".join(replies))
    words = [*_SCRIPTED, script, "chat", recipe, *options]
    home = {"EDGE_EFT_HOME": str(folder)}
    return Tmux(list(map(str, words)), columns, rows, {**home, **(environment or {})})


def go(folder):
    """Let the reply go on that is at its <wait>."""
    Path(folder, "go").touch()
