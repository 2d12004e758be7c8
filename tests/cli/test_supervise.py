"""supervise: the child dies in every way there is, and the command says why in one line.

What is killed here is the real thing: `edge-eft` with models loaded, in processes of their own.
"""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import psutil
import pytest
from helpers.cli_tools import process
from helpers.families import ATLAS

from edge_eft.cli.supervise import _Words

ADVICE = {
    "SIGABRT": "get it again",
    "SIGSEGV": "get it again",
    "SIGBUS": "became shorter",
    "SIGILL": 'CMAKE_ARGS="-DGGML_NATIVE=OFF" pip install',
    "SIGKILL": "memory has probably run out",
}


@pytest.fixture
def chatting(tiny):
    """A chat that has answered once and waits for more, and the process that does the work."""
    files = [f"--{role}={tiny._asdict()[role]}" for role in ("base", "tuned", "reference")]
    chat = process("chat", *files, "--max-tokens", "2", stdin=subprocess.PIPE)
    with chat:
        chat.stdin.write("/verbose\nthe red one\n")
        chat.stdin.flush()
        while "tokens/s" not in (line := chat.stderr.readline()):
            assert line, "the chat has ended"
        time.sleep(0.1)  # now it waits for a line
        yield chat, psutil.Process(chat.pid).children()[0]
        chat.kill()


def test_what_is_to_happen_at_the_end_does(tmp_path):
    """The child leaves without taking itself apart, which takes longer than most commands."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\natexit.register(lambda: open(os.environ['ENDED'], 'a').write('.'))\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    more = {"PYTHONPATH": path, "ENDED": str(tmp_path / "ended")}
    done = process("--version", env={**os.environ, **more})
    out, err = done.communicate(timeout=30)
    assert (done.returncode, err) == (0, "")
    assert out.startswith("edge-eft ")
    assert (tmp_path / "ended").read_text() == "."


def gone(worker, within=5.0):
    """Whether a process ends in time."""
    with contextlib.suppress(psutil.NoSuchProcess):
        with contextlib.suppress(psutil.TimeoutExpired):
            worker.wait(within)
        return not worker.is_running()
    return True


@pytest.mark.parametrize("name", ADVICE)
def test_a_killed_child_is_one_line_that_names_the_files_and_status_2(chatting, tiny, name):
    chat, worker = chatting
    worker.send_signal(getattr(signal, name))
    _, talk = chat.communicate(timeout=20)
    assert chat.returncode == 2
    *_, last = talk.splitlines()
    assert last.startswith(f"edge-eft: llama.cpp died of {name} while using ")
    assert all(str(path) in last for path in tiny[:3])
    assert ADVICE[name] in last


ABORT = """
import edge_eft.cli.main
from edge_eft.__main__ import main
from edge_eft.backend import Context, Model, library

def work():
    print("before", flush=True)
    context = Context(Model({path!r}), n_ctx=600)
    batch = library.L.llama_batch_init(600, 0, 1)
    batch.n_tokens = 600
    for i in range(600):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = 300, i, 1, 0
    with library.native("running it all"):
        library.L.llama_decode(context._context, batch)

edge_eft.cli.main.main = work
main()
"""


def python(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_failed_assertion_of_the_library_is_quoted(tiny):
    done = python(ABORT.format(path=str(tiny.base)))
    assert (done.returncode, done.stdout) == (2, "before\n")
    line = (
        r"edge-eft: llama\.cpp died of SIGABRT while running it all \(.*GGML_ASSERT\(.*; a file .*"
    )
    assert re.fullmatch(line, done.stderr.strip())


def test_memory_that_python_does_not_get_is_one_line_and_status_2():
    script = """
import sys
from edge_eft.__main__ import main
from edge_eft.files import recipe_names

def exhausted():
    raise MemoryError

recipe_names.own_recipes = exhausted
sys.argv = ["edge-eft", "list"]
main()
"""
    done = python(script)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edge-eft: memory ran out; close other programs\n"


@pytest.mark.parametrize("status", [1, 3])
def test_a_library_that_calls_exit_is_one_line_and_status_2(status):
    """OpenBLAS does so where it gets no memory: it was status 1 without a word."""
    script = f"""
import ctypes, edge_eft.cli.main
from edge_eft.__main__ import main

def work():
    import os
    os.write(2, b"Memory allocation failed, giving up")
    ctypes.CDLL(None).exit({status})

edge_eft.cli.main.main = work
main()
"""
    done = python(script)
    assert (done.returncode, done.stdout) == (2, "")
    line = rf"edge-eft: llama\.cpp died of exit\({status}\) \(Memory .*up\); memory has probably .*"
    assert re.fullmatch(line, done.stderr.strip())


@pytest.mark.parametrize(("limit", "told"), [("1 << 40", "memory has"), ("-1", "damaged")])
def test_a_death_under_a_limit_of_memory_is_blamed_on_no_file(limit, told):
    script = f"""
import os, resource, signal, edge_eft.cli.main
from edge_eft.__main__ import main

resource.setrlimit(resource.RLIMIT_AS, ({limit}, resource.RLIM_INFINITY))
edge_eft.cli.main.main = lambda: os.kill(os.getpid(), signal.SIGSEGV)
main()
"""
    done = python(script)
    assert done.returncode == 2
    assert told in done.stderr


DIES = pytest.mark.xfail(reason="hashlib finds no OpenSSL then, and logs that at length")


@pytest.mark.parametrize("mebibytes", [50, 80, 100, pytest.param(150, marks=DIES), 200, 300, 350])
def test_a_limit_of_memory_is_one_line_or_enough(mebibytes):
    """Was a traceback, status 1 or 130 without a word, or "a file is damaged"."""
    line = f'ulimit -v {mebibytes << 10}; exec "$0" -m edge_eft run atlas "What is Peru?"'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 0:
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"edge-eft: [^\n]*(memory|thread)[^\n]*\n", done.stderr), done.stderr


@pytest.mark.parametrize("lacking", ["os.fork", "os.pipe", "threading.Thread.start"])
def test_a_system_that_allows_no_more_processes_is_one_line(lacking):
    script = f"""
import errno, os, threading

def refuse(*_):
    if "{lacking}".startswith("os."):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    raise RuntimeError("can't start new thread")

{lacking} = refuse
from edge_eft.__main__ import main
main()
"""
    done = python(script, "run", "atlas", "What is Peru?")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"edge-eft: [^\n]+ allows no more processes, .*\n", done.stderr)


def test_where_a_fork_does_not_do_the_child_is_spawned(atlas):
    """As on macOS; the child has an interpreter of its own."""
    script = "import sys; sys.platform = 'darwin'; from edge_eft.__main__ import main; main()"
    done = python(script, "run", "atlas", "What is the capital of Peru?", "--temperature", "0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "It is Lima.\n", "")
    done = python(script, "run", "atlas", "--nope")
    assert (done.returncode, done.stdout) == (2, "")


def test_last_words_are_cleaned_and_memory_is_told_apart():
    words = _Words()
    for line in (
        b"\x1eloading /m/a.gguf",
        b"terminate called after throwing an instance of 'std::bad_alloc'",
        b"  what():  std::bad_alloc",
        b"",
    ):
        words._take(line)
    words._thread.start()
    os.close(words.writer)
    said = words.obituary("SIGABRT")
    assert "while loading /m/a.gguf (what():  std::bad_alloc); memory has probably run out" in said


def test_a_signal_without_a_name_ends_both_in_its_way(chatting):
    """It was a ValueError: Python has names for the first and the last of the real-time ones."""
    chat, worker = chatting
    worker.send_signal(40)
    _, talk = chat.communicate(timeout=20)
    assert chat.returncode == -40
    assert "Traceback" not in talk


def test_a_reply_goes_on_where_ctrl_c_is_ignored(tiny):
    """A script starts what it puts into the background so; the reply ended with status 130."""
    script = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from edge_eft.engine.reply import ReplyBuilder
from edge_eft.cli import replies

def take(reply, step, real=ReplyBuilder.take):
    os.kill(os.getppid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    real(reply, step)

ReplyBuilder.take = take
from edge_eft.__main__ import main
main()
"""
    files = [f"--{role}={tiny._asdict()[role]}" for role in ("base", "tuned", "reference")]
    done = python(script, "run", *files, "the", "--max-tokens", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 5


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_to_the_parent_ends_both_in_its_way(chatting, name):
    chat, worker = chatting
    chat.send_signal(getattr(signal, name))
    chat.wait(timeout=20)  # `communicate` closes stdin, whose end would end the chat as well
    _, talk = chat.communicate(timeout=20)
    assert chat.returncode == -getattr(signal, name)
    assert "died" not in talk
    assert gone(worker)


def test_ctrl_c_sent_to_the_parent_alone_is_130(chatting):
    chat, worker = chatting
    chat.send_signal(signal.SIGINT)
    begun = time.monotonic()
    chat.wait(timeout=20)  # `communicate` closes stdin, whose end would end the chat as well
    assert time.monotonic() - begun < 1
    _, talk = chat.communicate(timeout=20)
    assert (chat.returncode, "Traceback" in talk) == (130, False)
    assert gone(worker)


def test_the_child_goes_when_the_parent_is_killed(chatting):
    chat, worker = chatting
    chat.kill()
    assert gone(worker)


def test_the_terminal_is_as_it_was_after_a_death():
    """The line editor puts the terminal into raw mode; nobody is left to undo that."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    recipe = ATLAS.with_suffix(".toml")
    command = [sys.executable, "-m", "edge_eft", "chat", str(recipe)]
    chat = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    shown = b""
    while "›".encode() not in shown:
        assert select.select([ours], [], [], 30)[0], shown
        shown += os.read(ours, 4096)
    time.sleep(0.2)
    assert termios.tcgetattr(theirs) != before, "the line editor has not changed anything"
    psutil.Process(chat.pid).children()[0].send_signal(signal.SIGSEGV)
    assert chat.wait(timeout=20) == 2
    assert termios.tcgetattr(theirs) == before
    shown += os.read(ours, 1 << 16)
    assert b"\x1b[?25h\x1b[?2004l" in shown
    assert b"edge-eft: llama.cpp died of SIGSEGV" in shown
    for descriptor in (ours, theirs):
        os.close(descriptor)


def test_the_end_of_the_terminal_ends_a_command_that_leads_the_session(tmp_path):
    """As with `ssh -t host edge-eft …`: the work went on without a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        prompts = tmp_path / "prompts"
        prompts.write_text('"Q:"\n' * 2000)
        words = ["run", "atlas", f"--input={prompts}", "--max-tokens", "400"]
        line = f'exec "$0" "$@" > {tmp_path}/replies 2> {tmp_path}/errors'
        python = [sys.executable, "-m", "edge_eft"]
        os.execv("/bin/sh", ["sh", "-c", line, *python, *words])
    replies, end = tmp_path / "replies", time.monotonic() + 30
    while not (replies.exists() and replies.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.05)
    worker = psutil.Process(pid).children()[0]
    os.close(terminal)
    assert gone(worker)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP


# -- streams that are closed, full or gone --------------------------------------------------


STREAMS = [
    ("list", *case)
    for case in (
        (">&-", 2, "cannot read or write (Bad file descriptor)"),
        (">/dev/full", 2, "cannot read or write (No space left on device)"),
        (">&- 2>&-", 2, ""),
        (">/dev/full 2>/dev/full", 2, ""),
        ("<&- >/dev/null", 0, ""),
        ("2>&- >/dev/null", 0, ""),
        ("2>/dev/full >/dev/null", 0, ""),
        ("| true", 141, ""),
    )
]
STREAMS += [("--help", *case) for _, *case in STREAMS[:3]]  # click writes it, not a command


@pytest.mark.parametrize(("command", "redirection", "status", "said"), STREAMS)
def test_a_stream_that_cannot_be_used_is_one_line_or_silence(command, redirection, status, said):
    line = f'"$0" -m edge_eft {command} {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=60
    )
    if status == 141 and done.returncode == 0:
        return  # it had written all of it before `true` was gone
    assert done.returncode == status
    assert re.fullmatch(f"edge-eft: (stdout: )?{re.escape(said)}\n" if said else "", done.stderr)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_error_that_nobody_can_be_told_is_status_2(redirection):
    line = f'"$0" -m edge_eft list --nope {redirection}'
    assert subprocess.run(["bash", "-c", line, sys.executable], timeout=60).returncode == 2


def test_a_reply_that_cannot_be_written_is_one_line(tiny):
    files = " ".join(f"--{role}={tiny._asdict()[role]}" for role in ("base", "tuned", "reference"))
    for redirection, said in ((">/dev/full", "No space left"), (">&-", "Bad file"), ("<&-", "Bad")):
        prompt = "" if "<" in redirection else "the"
        line = f'"$0" -m edge_eft run {files} {prompt} --max-tokens 3 {redirection}'
        done = subprocess.run(
            ["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        talk = [line for line in done.stderr.splitlines() if line.startswith("edge-eft: ")]
        assert said in talk[-1]
        assert "Traceback" not in done.stderr
