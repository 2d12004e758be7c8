"""config, and the configuration file: which default holds, what is refused, what is written."""

import json
import stat

import pytest
from click.shell_completion import ShellComplete
from helpers.cli_tools import complaint, invoke

from edge_eft.cli import config_file
from edge_eft.cli.command import Option
from edge_eft.cli.main import Commands, cli


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The configuration file of a home that is empty."""
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "config.toml"


def values():
    return json.loads(invoke("config", "--json").stdout)["values"]


# -- which holds ---------------------------------------------------------------------------


def test_the_command_line_goes_over_the_environment_and_that_over_the_file(
    file, recipe, scripted, monkeypatch
):
    file.write_text("temperature = 0.1\nseed = 1\nmax_tokens = 11\n[run]\nseed = 2\n")
    monkeypatch.setenv("EDGE_EFT_MAX_TOKENS", "22")
    emulator = scripted(*"ab")
    invoke("run", recipe, "x")
    invoke("run", recipe, "x", "-t", "0.3", "-n", "33", "-s", "3")
    given = [(r.temperature, r.seed, r.max_tokens) for r in emulator.requests]
    assert given == [(0.1, 2, 22), (0.3, 3, 33)]


def test_what_loads_the_models_has_defaults_and_the_recipe_comes_after(file, recipe, scripted):
    file.write_text("n_ctx = 64\nthreads = 1\n")
    emulator = scripted("a")
    invoke("run", recipe, "x")
    given = {"n_slots": 1, "n_ctx": 64, "n_threads": 1, "n_gpu_layers": None}
    assert emulator.options == {**given, "on_load": None}


def test_lists_tables_and_flags_are_read(file, recipe, scripted):
    file.write_text('stop = ["Q:", " and "]\nmix = { chat = 0.5, brief = 0.25 }\nquiet = true\n')
    emulator = scripted("a", "b")
    invoke("run", recipe, "x")
    (request,) = emulator.requests
    assert request.stop == ("Q:", " and ")
    assert request.weights.mix == {"chat": 0.5, "brief": 0.25}
    assert invoke("run", "one sentence", "-m", recipe).stderr == ""


def test_a_variable_holds_one_text(file, recipe, scripted, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_STOP", "two words")
    monkeypatch.setenv("EDGE_EFT_SYSTEM", "Be brief.")
    emulator = scripted("a", "b")
    invoke("run", recipe, "x")
    assert emulator.requests[0].stop == ("two words",)
    assert emulator.requests[0].prompt[0] == {"role": "system", "content": "Be brief."}
    assert invoke("run", recipe, "x", "--raw").exit_code == 0, "a raw prompt goes without it"


def test_only_and_beta_take_the_place_of_defaults(file, recipe, scripted):
    file.write_text('alpha = 0.5\nmix = "chat=1"\n')
    emulator = scripted("a", "b")
    assert invoke("run", recipe, "x", "--only", "base").exit_code == 0
    assert invoke("run", recipe, "x", "--beta", "1.5").exit_code == 0
    only, beta = (request.weights for request in emulator.requests)
    assert (only.role, beta.beta, beta.mix) == ("base", 1.5, {"chat": 1.0})
    assert "exclude each other" in complaint("run", recipe, "x", "--alpha", "1.5", "--beta", "2")


def test_a_line_of_a_file_takes_the_place_of_dials_that_are_defaults(file, recipe, scripted):
    file.write_text("alpha = 0.5\n")
    emulator = scripted("a", "b", "c")
    lines = '{"prompt": "x", "only": "base"}\n{"prompt": "x", "beta": 2}\n"x"\n'
    assert invoke("run", recipe, "--input", "-", stdin=lines).exit_code == 0
    weights = [request.weights for request in emulator.submitted]
    assert [(w.role, w.beta, w.alpha) for w in weights] == [
        ("base", None, 1.0),
        (None, 2, 1.0),
        (None, None, 0.5),
    ]


def test_bench_and_demo_measure_with_what_their_own_options_say(file, monkeypatch):
    file.write_text("temperature = 7\nseed = 7\n")
    for name in ("bench", "demo"):
        command = cli.get_command(None, name)
        keyed = {param.name for param in command.params if getattr(param, "key", False)}
        assert not keyed & {"temperature", "seed", "alpha"}


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("tempature = 1", "config.toml: unknown key 'tempature' (did you mean temperature?)"),
        ("[rnu]\nseed = 1", "config.toml: unknown key 'rnu' (did you mean run?)"),
        ("[run]\nsede = 1", "config.toml: [run] unknown key 'sede' (did you mean seed?)"),
        ("run = 1", "config.toml: run is one value; write [run] and below it what is for it"),
        ("[[run]]\nseed = 1", "config.toml: run is a list; write [run]"),
        ("system = ['be brief']", "config.toml: system is a list; write one value"),
        ("[run]\nrecipe = { a = 1 }", "config.toml: [run] recipe is a table; write one value"),
        ("stop = [['a']]", "config.toml: stop is a list; write one value"),
        ("system = '\\u0000'".replace("'", '"'), "config.toml: system is '\\x00', which has a NUL"),
        (f"seed = {'9' * 5000}", "config.toml: is not valid TOML (Exceeds the limit"),
        (f"seed = 0x{'f' * 5000}", "config.toml: seed is a number of too many digits"),
        (f"seed = -{'9' * 4000}", f"config.toml: seed is -{'9' * 79}…; it must be a whole number"),
        ("base = 'x'", "config.toml: unknown key 'base'"),
        ("temperature = 'hot'", "config.toml: temperature is 'hot'; it must be a number, 0 to 100"),
        ("temperature = true", "config.toml: temperature is 'true'; it must be a number"),
        ("temperature = [1, 2]", "config.toml: temperature is a list; write one value"),
        ("[run]\nseed = -1", "config.toml: [run] seed is -1; it must be a whole number, 0 or more"),
        ("mix = 'chat'", "config.toml: mix is 'chat'; write each delta once"),
        ("draft = 99", "config.toml: draft is '99'; it must be a whole number, 0 to 15, or auto"),
        ("quiet = 'maybe'", "config.toml: quiet is 'maybe'; it must be true or false"),
        ("threads = ", "config.toml: is not valid TOML"),
        (b"\xff\xfe\x00", "config.toml: cannot be read (is not UTF-8)"),
        ("directory", "config.toml: cannot be read (Is a directory)"),
    ],
)
def test_a_wrong_file_is_one_line(file, recipe, text, seen):
    if text == "directory":
        file.mkdir()
    else:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert seen in complaint("run", recipe, "x")
    assert invoke("run", "--help").exit_code == 0, "help is there whatever the file holds"
    assert invoke("list", "atlas").exit_code == 0, "and what reads no defaults"


def test_a_wrong_variable_is_one_line(file, recipe, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_TOP_P", "2")
    assert "EDGE_EFT_TOP_P is 2.0; it must be a number, more than 0" in complaint("run", recipe)
    assert "EDGE_EFT_TOP_P is" in complaint("config")
    monkeypatch.setenv("EDGE_EFT_TOP_P", "")
    assert "the prompt is empty" in complaint("run", recipe)


def test_a_recipe_of_ones_own_default_that_is_not_there_is_named(file):
    file.write_text('recipe = "gone"')
    assert "recipe 'gone' is not known" in complaint("run", "a question")


def test_a_hostile_file_cannot_steer_the_terminal(file, recipe):
    file.write_text('temperature = "\\u001b[31mred"\n')
    assert "\x1b" not in complaint("run", recipe, "x")
    file.write_text('system = "\\u001b[31mred"\n')
    assert "\x1b" not in invoke("config").stdout


# -- set and unset -------------------------------------------------------------------------


def test_set_and_unset_keep_the_rest_of_the_file(file):
    text = "# mine\ntemperature = 0.5  # cool\n\n[chat]  # here\n# seldom\nseed = 1\n"
    file.write_text(text)
    for key, value in (
        ("temperature", "0.7"),
        ("recipe", "atlas"),
        ("chat.seed", "2"),
        ("chat.stop", "Q:"),
        ("serve.port", "11434"),
        ("quiet", "yes"),
        ("top-p", ".9"),
    ):
        result = invoke("config", "set", key, value)
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert file.read_text() == (
        '# mine\ntemperature = 0.7  # cool\nrecipe = "atlas"\nquiet = true\ntop_p = 0.9\n\n'
        '[chat]  # here\n# seldom\nseed = 2\nstop = ["Q:"]\n\n[serve]\nport = 11434\n'
    )
    for key in ("recipe", "quiet", "top_p", "chat.stop"):
        assert invoke("config", "unset", key).exit_code == 0
    assert file.read_text() == (
        "# mine\ntemperature = 0.7  # cool\n\n[chat]  # here\n# seldom\nseed = 2\n\n"
        "[serve]\nport = 11434\n"
    )


def test_the_first_key_makes_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "not" / "there"))
    assert invoke("config", "set", "mix", "chat=.5").stderr == 'mix is "chat=.5"\n'
    assert (tmp_path / "not" / "there" / "config.toml").read_text() == 'mix = "chat=.5"\n'
    assert invoke("config", "unset", "mix").exit_code == 0
    assert values()["mix"] == {"value": None, "from": "built in"}


def test_a_recipe_that_is_a_file_is_found_from_everywhere(file, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke("config", "set", "recipe", "family.toml")
    assert values()["recipe"]["value"] == recipe


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("set nope 1", "unknown key 'nope'"),
        ("set tempature 1", "(did you mean temperature?)"),
        ("set temperature hot", "temperature is 'hot'; it must be a number, 0 to 100"),
        ("set foo.seed 1", "'foo.seed' is not a key; a command's own is COMMAND.KEY"),
        ("set show.seed 1", "show has no option 'seed'"),
        ("set recipe nosuch", "recipe 'nosuch' is not known"),
        ("set recipe", "VALUE is missing; give edge-eft config set recipe VALUE"),
        ("set stop a b", "is one word too many"),
        ("unset seed", "has no 'seed'"),
        ("nope", "there is no command 'nope'; there are: get, set, unset"),
    ],
)
def test_what_cannot_be_set_is_one_line(file, words, seen):
    assert seen in complaint("config", *words.split())
    assert not file.exists()


def test_a_value_of_several_lines_is_left_to_its_owner(file):
    text = 'stop = [\n  "a",\n  "b",\n]\n'
    file.write_text(text)
    assert 'write stop = ["c"] there yourself' in complaint("config", "set", "stop", "c")
    assert "remove stop there yourself" in complaint("config", "unset", "stop")
    assert file.read_text() == text


def test_a_file_that_cannot_be_written_is_one_line(file, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("edge_eft.files.recipe_names.write_whole", refuse)
    assert "config.toml: cannot be written (Permission denied)" in complaint(
        "config", "set", "seed", "1"
    )


def test_config_says_where_each_default_comes_from(file, monkeypatch):
    file.write_text("seed = 1\n[chat]\ntemperature = 0.2\n")
    monkeypatch.setenv("EDGE_EFT_TEMPERATURE", "0.4")
    monkeypatch.setenv("EDGE_EFT_TEMPRATURE", "0.4")
    found = values()
    assert found["seed"] == {"value": "1", "from": "file"}
    assert found["temperature"] == {"value": "0.4", "from": "EDGE_EFT_TEMPERATURE"}
    assert found["chat.temperature"] == {"value": "0.2", "from": "file"}
    assert found["recipe"] == {"value": "atlas", "from": "built in"}
    result = invoke("config")
    assert result.stdout.startswith(f"{file}\n")
    assert result.stderr == "EDGE_EFT_TEMPRATURE is set, and nothing reads it\n"


# -- the list of keys ----------------------------------------------------------------------


def test_every_key_is_an_option_and_every_such_option_a_key():
    keyed = {
        name: {
            p.name for p in cli.get_command(None, name).params if isinstance(p, Option) and p.key
        }
        for name in Commands.lazy
    }
    assert set().union(*keyed.values()) == set(config_file.KEYS)
    assert {name for name, keys in keyed.items() if keys} == set(config_file.COMMANDS)


def test_the_file_is_written_whole(file):
    invoke("config", "set", "seed", "1")
    assert not stat.S_IMODE(file.stat().st_mode) & 0o077
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("list", "edge-eft config"),
        ("temp", "edge-eft config get temp"),
        ("temp 0", "edge-eft config set temp 0"),
        ("temp=0", "edge-eft config set temp=0"),
        ("rm seed", "edge-eft config unset seed"),
        ("set temp", "VALUE is missing; give edge-eft config set temp VALUE"),
    ],
)
def test_a_key_without_a_command_is_told_the_line(file, words, meant):
    assert f"{meant} (see" in complaint("config", *words.split())


def test_a_key_may_be_called_as_its_option_is_and_be_read_again(file):
    assert invoke("config", "set", "temp=0").exit_code == 0
    assert invoke("config", "set", "chat.temp", "0.5").exit_code == 0
    assert invoke("config", "set", "--", "--model", "atlas").exit_code == 0
    assert invoke("config", "get", "temperature").stdout == "0.0\n"
    assert invoke("config", "get", "chat.temp").stdout == "0.5\n"
    assert invoke("config", "get", "run.temp").stdout == "0.0\n"
    assert invoke("config", "get", "model").stdout == "atlas\n"
    assert invoke("config", "get", "stop").stdout == ""
    assert "unknown key 'tmp'" in complaint("config", "get", "tmp")


def test_a_default_recipe_that_is_not_here_is_said_not_to_be(file):
    assert "recipe 'nosuch' is not known" in complaint("config", "set", "recipe", "nosuch")
    result = invoke("config", "set", "recipe", "qwen3-8b")
    assert result.exit_code == 0
    assert "its models are not here yet: edge-eft pull qwen3-8b" in result.stderr


@pytest.mark.parametrize(
    ("key", "begun", "found"),
    [
        ("recipe", "atlas-d", ["atlas-down"]),
        ("model", "atlas-d", ["atlas-down"]),
        ("draft", "", ["auto"]),
        ("quiet", "t", ["true"]),
        ("chat.plain", "f", ["false"]),
        ("nosuch", "", []),
    ],
)
def test_values_are_completed(file, key, begun, found):
    shell = ShellComplete(cli, {}, "edge-eft", "_EDGE_EFT_COMPLETE")
    items = shell.get_completions(["config", "set", key], begun)
    assert [item.value for item in items] == found
