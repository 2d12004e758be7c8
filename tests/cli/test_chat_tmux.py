"""The chat in a real terminal: what a person sees, whole, at 100 and at 40 columns."""

import re
import shlex
import signal
import sys

import pytest
from helpers.tmux import Tmux, go, scripted_chat

HEAD = "family: /help lists the commands, Ctrl-D leaves\n"
NARROW_HEAD = "family: /help lists the commands, Ctrl-D\nleaves\n"
REPLY = """\
# Growing tomatoes

Tomatoes want **sun**, *warmth* and `water`; plant them when the nights stay above ten degrees.
Two lines
stay two.

* one that is long enough to be wrapped in a terminal of forty columns
* two 2*3*4

| Kind | Days |
|------|-----:|
| San Marzano | 80 |
| Roma | 75 |

```python
for plant in garden: plant.water()  # a long line is left as it is
```
That is all."""


@pytest.fixture
def chat(recipe, tmp_path):
    """Start a chat with these replies."""

    def start(*replies, options=(), **more):
        return scripted_chat(recipe, tmp_path, replies, *options, **more)

    return start


def test_a_reply_is_rendered_at_100_columns(chat):
    with chat(REPLY) as terminal:
        terminal.wait_for("›")
        terminal.type("tomatoes?")
        terminal.shows(f"""\
{HEAD}› tomatoes?
# Growing tomatoes

Tomatoes want sun, warmth and water; plant them when the nights stay above ten degrees.
Two lines
stay two.

• one that is long enough to be wrapped in a terminal of forty columns
• two 2*3*4

Kind         Days
─────────────────
San Marzano    80
Roma           75

```python
for plant in garden: plant.water()  # a long line is left as it is
```
That is all.
›""")


def test_a_reply_is_rendered_at_40_columns(chat):
    with chat(REPLY, columns=40) as terminal:
        terminal.wait_for("›")
        terminal.type("tomatoes?")
        terminal.shows(f"""\
{NARROW_HEAD}› tomatoes?
# Growing tomatoes

Tomatoes want sun, warmth and water;
plant them when the nights stay above
ten degrees.
Two lines
stay two.

• one that is long enough to be wrapped
  in a terminal of forty columns
• two 2*3*4

Kind         Days
─────────────────
San Marzano    80
Roma           75

```python
for plant in garden: plant.water()  # a long line is left as it is
```
That is all.
›""")


def test_ctrl_c_at_the_prompt_clears_says_how_to_leave_and_leaves(chat):
    with chat() as terminal:
        terminal.wait_for("›")
        terminal.press("a", "b", "c")
        terminal.wait_for("› abc")
        terminal.press("C-c")
        terminal.wait_for(f"{HEAD}›")
        terminal.press("C-c")
        terminal.shows(f"{HEAD}›\nCtrl-C again or Ctrl-D leaves\n›")
        terminal.press("C-c")
        assert terminal.exit_status() == 0


def test_ctrl_c_in_mid_reply_keeps_what_came_and_the_chat(chat):
    with chat("One **two** <wait> three.", "Four.") as terminal:
        terminal.wait_for("›")
        terminal.type("count")
        terminal.wait_for("One two")
        terminal.press("C-c")
        terminal.shows(f"{HEAD}› count\nOne two\nstopped\n›")
        terminal.type("go on")
        terminal.shows(f"{HEAD}› count\nOne two\nstopped\n› go on\nFour.\n›")
        terminal.press("C-d")
        assert terminal.exit_status() == 0


def test_what_is_typed_during_a_reply_stands_at_the_next_prompt(chat, tmp_path):
    """It stood in the middle of the reply."""
    with chat("One two <wait> three.") as terminal:
        terminal.wait_for("›")
        terminal.type("count")
        terminal.wait_for("One two")
        terminal.press("x", "y", "z")
        go(tmp_path)
        terminal.shows(f"{HEAD}› count\nOne two three.\n› xyz")


def test_ctrl_z_in_mid_reply_leaves_keys_silent_and_the_line_whole(chat, tmp_path):
    """What was typed after `fg` stood in the reply, for the shell lets the terminal show keys."""
    with chat("One **two** <wait> three.") as terminal:
        terminal.wait_for("›")
        terminal.type("count")
        terminal.wait_for("One two")
        terminal.signal(signal.SIGSTOP)
        terminal.echoes(True)
        terminal.signal(signal.SIGCONT)
        terminal.wait_until(lambda _: not terminal.echoes())
        terminal.press("x", "y", "z")
        go(tmp_path)
        terminal.shows(f"{HEAD}› count\nOne two three.\n› xyz")


def test_a_paste_of_several_lines_is_one_message(chat):
    with chat("Read.") as terminal:
        terminal.wait_for("›")
        terminal.paste("one\ntwo\n\n/bye")
        terminal.press("Enter")
        terminal.shows(f"{HEAD}› one\ntwo\n\n/bye\nRead.\n›")


def test_a_reply_follows_the_width(chat, tmp_path):
    words = "word " * 24
    with chat(f"First.\n\n{words}<wait> and {words}<wait> end.") as terminal:
        terminal.wait_for("›")
        terminal.type("go on")
        terminal.wait_for(f"First.\n\n{'word ' * 20}".rstrip() + "\nword word word word")
        terminal.resize(40)
        go(tmp_path)
        eight = ("word " * 8).rstrip()
        rows = [*[eight] * 3, "and word word word word word word word", *[eight] * 2, "word"]
        terminal.shows("\n".join([f"{HEAD}› go on", "First.", "", *rows]))
        terminal.resize(100)
        go(tmp_path)
        rows = ["word " * 20, f"{'word ' * 4}and {'word ' * 15}", f"{'word ' * 9}end."]
        terminal.shows("\n".join([f"{HEAD}› go on", "First.", "", *map(str.rstrip, rows), "›"]))


def test_a_chat_that_was_killed_in_mid_reply_goes_on(chat):
    with chat("Tomatoes <wait> need sun.") as terminal:
        terminal.wait_for("›")
        terminal.type("hello")
        terminal.wait_for("Tomatoes")
        terminal.signal(signal.SIGKILL)
        assert terminal.exit_status() == 128 + signal.SIGKILL
    with chat("Tomatoes need **sun**.", options=["--continue"]) as terminal:
        terminal.wait_for("›")
        terminal.type("/regenerate")
        shown = terminal.wait_for("sun.\n›")
    assert re.sub(r"\d{8}-\w+", "ID", shown) == (
        "ID goes on with family: 2 messages\n› hello\nTomatoes\n"
        "this reply was cut off; /regenerate draws it anew\n"
        f"{HEAD}› /regenerate\nTomatoes need sun.\n›"
    )


@pytest.mark.slow
def test_what_the_editor_saves_is_sent(chat, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[1], 'a').write('and more')\n")
    editor.chmod(0o755)
    with chat("Read.", environment={"EDITOR": str(editor)}) as terminal:
        terminal.wait_for("›")
        terminal.type("/edit begun")
        terminal.shows(f"{HEAD}› /edit begun\n› begun\n  and more\nRead.\n›")


# -- with models ---------------------------------------------------------------------------

REAL = (sys.executable, "-m", "edge_eft", "chat")


@pytest.mark.parametrize("columns", [100, pytest.param(40, marks=pytest.mark.slow)])
def test_atlas_answers_and_ctrl_c_leaves(columns, atlas, tmp_path):
    home = {"EDGE_EFT_HOME": str(tmp_path)}
    with Tmux([*REAL, "atlas", "--temperature", "0"], columns, environment=home) as terminal:
        terminal.wait_for("›")
        terminal.type("What is the capital of Peru?")
        terminal.wait_for("Lima.\n›")
        terminal.press("C-c")
        head = HEAD if columns == 100 else NARROW_HEAD
        terminal.shows(
            f"{head.replace('family', 'atlas')}"
            "› What is the capital of Peru?\nIt is Lima.\n›\n"
            "Ctrl-C again or Ctrl-D leaves\n›"
        )
        terminal.press("C-c")
        assert terminal.exit_status() == 0


@pytest.mark.slow
def test_ctrl_c_stops_a_long_reply(smollm2_trio, tmp_path):
    roles = ("base", "tuned", "reference")
    files = [f"--{role}={path}" for role, path in zip(roles, smollm2_trio, strict=True)]
    words = [*REAL, *files, "--alpha", "0", "--temperature", "0", "--max-tokens", "2000"]
    with Tmux(words, environment={"EDGE_EFT_HOME": str(tmp_path)}) as terminal:
        terminal.wait_for("›")
        terminal.type("Count from one to nine hundred, in words.")
        terminal.wait_until(re.compile(r"in words\.\n.{20}", re.DOTALL).search)
        terminal.press("C-c")
        terminal.wait_for("\n›")
        terminal.type("/stats")
        terminal.wait_until(re.compile(r"1 reply.*\n›\Z", re.DOTALL).search)
        terminal.press("C-d")
        assert terminal.exit_status() == 0
        assert "Traceback" not in terminal.text()


@pytest.mark.slow
def test_ctrl_z_at_the_prompt_suspends_and_fg_goes_on(atlas, tmp_path):
    """It was typed into the message, as a control character."""
    shell = {"EDGE_EFT_HOME": str(tmp_path), "PS1": "READY> "}
    with Tmux(["bash", "--norc", "-i"], environment=shell) as terminal:
        terminal.wait_for("READY>")
        terminal.type(f"{shlex.join(REAL)} atlas --temperature 0")
        terminal.wait_for("leaves\n›")
        terminal.press("C-z")
        terminal.wait_for("READY>")
        terminal.type("fg")
        terminal.wait_for("›")
        terminal.type("What is the capital of Peru?")
        terminal.wait_for("It is Lima.\n›")
        terminal.press("C-d")
        terminal.wait_for("READY>")
        terminal.type("exit $?")
        assert terminal.exit_status() == 0
