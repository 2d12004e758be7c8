"""progress: what a terminal shows while work is under way, that it goes, and who is shown nothing.

Displays come after a while and draw a few times a second: here at once and all the time, so that
models of a few kB suffice. The slow test has a model that takes its time, and their own pace.
"""

import json
import os
import re
import signal
import sys
import time

import psutil
import pytest
from helpers.cli_tools import invoke, wait_for
from helpers.emulator_tools import open_emulator
from helpers.families import ATLAS
from helpers.pseudo_terminal import OnTerminal
from helpers.screen import Screen

from edge_eft import Request
from edge_eft.cli import progress, replies
from edge_eft.cli.progress import Display, Pace, Waiting, duration
from edge_eft.cli.terminal import say

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "darwin", reason="the child has an interpreter of its own"),
]

RECIPE = str(ATLAS.with_suffix(".toml"))
AT_ONCE = """
import rich.live, rich.progress_bar, rich.spinner, rich.table, edge_eft.cli.console
from edge_eft import Request
from edge_eft.cli import progress, replies
progress.Display.delay, progress.Display.tick, progress._SETTLING = 0.0, 0.001, 0.001
"""
HIDDEN = re.compile("[━⠀-⣿]|loading|reading|thinking|answering|asking|left")


def files(family):
    return [f"--{role}={family._asdict()[role]}" for role in ("base", "tuned", "reference")]


# -- what is shown -----------------------------------------------------------------------------


def test_a_load_shows_bytes_and_a_long_prompt_tokens_and_nothing_stays(tiny):
    words = ("run", *files(tiny), "--max-tokens=3", "--n-ctx=1500", "--raw", "--seed=1", "? " * 600)
    run = OnTerminal(*words, setup=AT_ONCE, columns=200)
    assert run.status() == 0
    assert run.saw(r"loading random\d.gguf  [━╸╺]+  [\d,]+ kB of \d+ kB")
    assert run.saw(r"reading the prompt  [━╸╺]+  \d+/1,\d\d\d")
    reply, report = run.text().rsplit("\n", 1)
    assert report.startswith("3 tokens")
    assert not HIDDEN.search(run.text()), "what stays is the reply and its line"
    piped = invoke(*words)
    assert reply == f"{piped.stderr}{piped.stdout}".strip()


@pytest.mark.slow
def test_a_real_model_shows_its_load_and_the_time_that_a_prompt_takes(smollm2_trio):
    base, tuned, reference = smollm2_trio
    words = (f"--base={base}", f"--tuned={tuned}", f"--reference={reference}", "--only=base")
    prompt = "The quick brown fox jumps over the lazy dog. " * 60
    run = OnTerminal("run", *words, "--max-tokens=3", "--n-ctx=1024", "--seed=1", prompt)
    assert run.status() == 0
    assert run.saw(r"loading \S*SmolLM2\S*  [━╸╺]+  [\d.]+ MB of 197 MB")
    assert run.saw(r"reading the prompt  [━╸╺]+  \d+/6\d\d · \d+ s left")
    assert not HIDDEN.search(run.text())


def test_compare_says_which_model_answers(tiny, monkeypatch):
    labels = []
    monkeypatch.setattr(progress, "_somebody_looks", lambda: True)
    monkeypatch.setattr(Display, "delay", 99.0)
    monkeypatch.setattr(Display, "update", lambda self, done, label: labels.append((label, done)))
    with open_emulator(tiny) as emulator:
        compared = replies.compare(emulator, Request("the red one", max_tokens=9, seed=1))
    expected = []
    for i, (way, (_, done)) in enumerate(compared.items(), 1):
        n_steps = len(done.tokens) + (done.finish_reason == "stop")
        tokens = [(f"{way} ({i} of 3): token{'s' * (n > 1)}", n) for n in range(1, n_steps + 1)]
        expected += [(f"{way} ({i} of 3): thinking…", 0), *tokens]
    assert labels == expected
    assert emulator.prefill.on_progress is None, "nobody listens any more"


@pytest.fixture
def questions(tmp_path):
    """A file of questions, and how many it has."""
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f'"What is {i} and {i}?"\n' for i in range(24)))
    return path, 24


def test_many_prompts_show_count_rate_and_time_left_and_a_file_has_the_replies(questions, tmp_path):
    path, n = questions
    out = tmp_path / "out.jsonl"
    words = ("run", RECIPE, "--input", path, "--json", "--max-tokens=12", "--temperature=0")
    run = OnTerminal(*words, setup=AT_ONCE, stdout=out)
    assert run.status() == 0
    assert run.saw(rf"answering  [━╸╺]+  \d+/{n} · [\d.]+/s · \d+ s left")
    assert run.text() == ""
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [*range(1, n + 1)]


def test_replies_of_many_prompts_stand_whole_above_the_display(questions):
    path, n = questions
    words = ("run", RECIPE, "--input", path, "--max-tokens=12", "--temperature=0")
    run = OnTerminal(*words, setup=AT_ONCE)
    assert run.status() == 0
    assert run.saw(r"\n\S  answering [^\n]+$")
    replies = invoke(*words).stdout.splitlines()
    lines = run.text().splitlines()
    assert lines[::2] == [f"{i}:" for i in range(1, n + 1)]
    assert [line.strip() for line in lines[1::2]] == [line.strip() for line in replies]


@pytest.mark.slow
def test_the_demo_says_which_step_it_is_at():
    demo = OnTerminal("demo", "--questions=14", setup=AT_ONCE)
    assert demo.status() == 0
    n_steps = 4 if ATLAS.with_name("atlas-down.toml").is_file() else 3
    assert demo.saw(rf"step 1 of {n_steps}: asking base alone  [━╸╺]+  \d+/14")
    assert demo.saw(rf"step 3 of {n_steps}: asking emulated  [━╸╺]+  \d+/14")
    assert not re.search("step|asking", demo.text())


# -- who is shown nothing ----------------------------------------------------------------------


def test_a_pipe_has_nothing_of_it(questions, monkeypatch):
    monkeypatch.setattr(Display, "delay", 0.0)
    for words in (
        ("run", RECIPE, "--input", questions[0], "--max-tokens=3", "--temperature=0"),
        ("compare", RECIPE, "--max-tokens=3", "--temperature=0", "What is Peru?"),
        ("demo", "--questions=3"),
        ("verify", "atlas"),
    ):
        result = invoke(*words)
        assert (result.exit_code, result.stderr) == (0, ""), words
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f⠀-⣿]", result.stdout), words


def test_a_terminal_that_is_to_be_quiet_has_nothing_of_it(tiny):
    words = ("compare", *files(tiny), "--max-tokens=9", "--seed=1", "the red one", "--quiet")
    compare = OnTerminal(*words, setup=AT_ONCE)
    assert compare.status() == 0
    assert not compare.saw(HIDDEN)
    assert b"\x1b[2K" not in compare.raw


def test_a_dumb_terminal_has_nothing_of_it(monkeypatch):
    terminal_of(monkeypatch)
    assert Display("working").shows
    monkeypatch.setenv("TERM", "dumb")
    assert not Display("working").shows


# -- how it ends -------------------------------------------------------------------------------

WORK = """
import ctypes, os, signal, time
import edge_eft.cli.main
from edge_eft.cli.progress import Display

def work():
    with Display("working", total=9):
        {work}

edge_eft.cli.main.main = work
"""


# A lock that is taken twice: no signal ends that.
NATIVE = "lock, m = ctypes.CDLL(None).pthread_mutex_lock, bytes(64); lock(m), lock(m)"


@pytest.mark.parametrize("work", ["time.sleep(30)", NATIVE], ids=["in Python", "in native code"])
def test_ctrl_c_wipes_the_display_and_is_130_within_a_second(work):
    run = OnTerminal(setup=AT_ONCE + WORK.format(work=work)).read(until="working")
    begun = time.monotonic()
    run.press("\x03")
    assert run.status() == 130
    assert time.monotonic() - begun < 5  # and what a busy machine adds to a second
    assert re.fullmatch(r"(\^C)?\n*", run.text())
    assert run.screen.has_cursor


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_kill_wipes_the_display(number):
    """The parent does, which knows that there was one: its own line stood behind it."""
    run = OnTerminal(setup=AT_ONCE + WORK.format(work="time.sleep(30)")).read(until="working")
    psutil.Process(run.pid).children()[0].send_signal(number)
    assert run.status() == (-number if number == signal.SIGTERM else 2)
    died = f"edge-eft: llama.cpp died of {number.name}" if number != signal.SIGTERM else ""
    assert run.text().startswith(died)
    assert "working" not in run.text()
    assert run.screen.has_cursor


def test_ctrl_c_wipes_the_display_of_a_load(smollm2_trio):
    base, tuned, reference = smollm2_trio
    words = (f"--base={base}", f"--tuned={tuned}", f"--reference={reference}")
    run = OnTerminal("run", *words, "hello", setup=AT_ONCE).read(until="loading")
    run.press("\x03")
    assert run.status() == 130
    assert re.fullmatch(r"(\^C)?\n*", run.text())


# -- the parts ---------------------------------------------------------------------------------


def test_a_time_is_said_as_people_say_it():
    assert [duration(s) for s in (0.2, 12.4, 99, 100, 320, 5999, 6000, 7800)] == [
        *("0 s", "12 s", "99 s", "1:40 min", "5:20 min", "99:59 min", "1:40 h", "2:10 h"),
    ]


def test_a_pace_is_that_of_the_last_half_minute_and_begins_anew_with_less():
    pace = Pace()
    for second in range(61):
        pace.saw(second + 9 * max(second - 30, 0), float(second))
    assert pace.per_second() == pytest.approx(10, rel=0.05)
    pace.saw(5, 61.0)
    assert pace.per_second() == 0, "too early to say"
    pace.saw(9, 63.0)
    assert pace.per_second() == 2


def test_what_a_cache_has_of_a_prompt_does_not_count_as_read(monkeypatch):
    terminal_of(monkeypatch)
    now = iter([0.0, 10.0, 12.0, 16.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    waiting = Waiting()
    waiting.reads(0, 7900, 8000)
    assert waiting.total is None, "little is left to read"
    waiting.reads(0, 7000, 8000)
    waiting.reads(0, 7100, 8000)
    waiting.reads(0, 7300, 8000)
    assert waiting.figures(80) == "7,300/8,000 · 14 s left"


def terminal_of(monkeypatch, columns=80):
    """Put stderr of this process on a terminal (not in a fixture: pytest sets it after those)."""

    class Stderr(Screen):
        raw = ""

        def write(self, text):
            self.raw += text
            return super().write(text)

        def fileno(self):
            return 2

    screen = Stderr(200)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(Display, "delay", 0.0)
    monkeypatch.setattr(Display, "tick", 0.001)
    size = os.terminal_size((columns, 24))
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda _: size)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def drawn(screen, pattern):
    wait_for(lambda: re.search(pattern, screen.text()))
    return screen.text()


@pytest.mark.parametrize("columns", [20, 40, 60, 100, 180])
def test_a_display_is_one_line_at_any_width(monkeypatch, columns):
    terminal = terminal_of(monkeypatch, columns)
    with Display(
        "loading 数据 a-model-with-a-very-long-name-Q4_K_M.gguf", as_bytes=True
    ) as display:
        display.update(12 << 30, 100 << 30)
        text = drawn(terminal, "1[23]")
        assert "\n" not in text
        assert len(text) < columns
    assert terminal.text() == ""


def test_lines_stand_above_a_display_and_it_goes_on(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with Display("working", total=3) as display:
        for i in range(3):
            drawn(terminal, "working[^\n]*$")
            say(f"line {i}", err=True)
            display.update(i + 1)
    assert terminal.text() == "line 0\nline 1\nline 2\n"


def test_a_display_inside_another_shows_nothing(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with Display("outer"), Display("inner") as inner:
        drawn(terminal, "outer")
        assert not inner.shows
    with Display("later"):
        drawn(terminal, "later")
    assert terminal.text() == ""


def test_without_colours_there_is_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = terminal_of(monkeypatch)
    with Display("working", total=3) as display:
        display.update(2)
        drawn(terminal, "2/3")
    assert not re.search(r"\x1b\[[0-9;]*3\dm", terminal.raw)
    monkeypatch.delenv("NO_COLOR")
    with Display("working", total=3) as display:
        display.update(1)
        drawn(terminal, "1/3")
    assert re.search(r"\x1b\[[0-9;]*3\dm", terminal.raw)


def test_a_closed_display_stays_closed(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with Display("working") as display:
        drawn(terminal, "working")
        display.close()
        assert terminal.text() == ""
        display.update(3, 4)
        time.sleep(0.02)
        assert terminal.text() == ""
        say("reply", err=True)
    assert terminal.text() == "reply\n"


def test_what_is_done_in_a_blink_is_not_shown_and_loads_no_rich(monkeypatch):
    terminal = terminal_of(monkeypatch)
    monkeypatch.setattr(Display, "delay", 5.0)
    monkeypatch.setattr(progress, "_live_line", lambda _: pytest.fail("it was drawn"))
    with Display("working", total=3) as display:
        display.update(3)
    assert terminal.text() == ""
