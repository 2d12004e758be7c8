"""recipe_toml: what a file may say, what is refused in which words, embedded ones, writing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recipe_files import BASE, DELTA, SHA, WHOLE, write_toml
from hypothesis import given
from hypothesis import strategies as st

import edge_eft
from edge_eft.errors import RecipeError
from edge_eft.files.hub_file import HubFile
from edge_eft.files.pulled import check_here
from edge_eft.files.recipe import Delta, ModelSpec, Recipe, from_files
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml


def refusal(folder: Path, text: str) -> str:
    path = write_toml(folder, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_every_key_of_a_recipe_is_read(tmp_path: Path) -> None:
    path = write_toml(tmp_path, WHOLE)
    recipe = load_recipe(path)
    assert (recipe.name, recipe.description, recipe.license) == ("atlas", "Geography", "Apache-2.0")
    assert (recipe.n_ctx, recipe.path) == (512, path)
    variables = {"enable_thinking": False, "tags": ["a", {"b": 1.5}]}
    assert recipe.base == ModelSpec(
        tmp_path / "atlas/base.gguf",
        SHA,
        "transcript",
        source="tools/train_atlas.py",
        template_kwargs=variables,
    )
    chat, brief = recipe.deltas["chat"], recipe.deltas["brief"]
    assert (chat.name, chat.weight, brief.weight) == ("chat", 1.0, 0.0)
    assert chat.tuned == ModelSpec(
        tmp_path / "atlas/chat.gguf", SHA, "chatml", end_tokens=("<e>", 7)
    )
    assert chat.reference == ModelSpec(tmp_path / "atlas/reference.gguf")
    assert recipe.roles()["reference:chat"].prompt == "transcript", "as the base's"
    assert recipe.roles()["reference:chat"].template_kwargs == variables, "as the base's"
    assert recipe.roles()["reference:brief"].template_kwargs == {}, "it has its own prompt"
    assert brief.reference.file == Path("/models/reference.gguf")
    assert brief.reference.prompt == "{{ messages[0].content }}"
    assert brief.tuned == ModelSpec(
        Path("/models/reference.gguf"),
        SHA,
        "template",
        lora=tmp_path / "atlas/brief.gguf",
        adopt=(8, "<t>"),
    )
    assert recipe.provenance == {"tool": "edge-eft convert", "numbers": "[1, 2]"}
    assert list(recipe.roles()) == [
        "base", "tuned:chat", "reference:chat", "tuned:brief", "reference:brief",
    ]  # fmt: skip


def test_a_recipe_without_optional_keys_has_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write_toml(tmp_path, BASE + DELTA))
    assert (recipe.name, recipe.description, recipe.license, recipe.n_ctx) == ("mine", "", "", None)
    assert recipe.deltas["d"].weight == 1.0
    prompts = [spec.prompt for spec in recipe.roles().values()]
    assert prompts == ["plain", "template", "plain"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nmae = 'x'\n" + DELTA, "unknown key `nmae` (did you mean name?)"),
        (BASE + "sha265 = 'x'\n" + DELTA, "unknown key `base.sha265` (did you mean sha256?)"),
        (BASE + "lora = 'x'\n" + DELTA, "unknown key `base.lora`"),
        (DELTA + "alpha = 1\n", "unknown key `delta.d.alpha`"),
        ("name = 5\n" + DELTA, "name is 5, not a text"),
        ("n_ctx = 0\n" + DELTA, "n_ctx is 0, not a positive number"),
        ("n_ctx = true\n" + DELTA, "n_ctx is True, not a positive number"),
        ("n_ctx = '512'\n" + DELTA, "n_ctx is '512', not a positive number"),
        ("provenance = 'x'\n" + DELTA, "provenance is 'x', not a table"),
        (BASE, "has no delta"),
        ("delta = 5\n", "delta is 5, not a table"),
        ("[delta]\nd = 5\n", "delta.d is 5, not a table"),
        ("base = 'b.gguf'\n" + DELTA, "base is 'b.gguf', not a table"),
        ("[base]\n" + DELTA, "base lacks `file`"),
        ("[base]\nfile = ''\n" + DELTA, "base.file is '', not the path"),
        ('[base]\nfile = "a\\u0000b"\n' + DELTA, "base.file is 'a\\x00b', not the path"),
        (BASE + "sha256 = '0123'\n" + DELTA, "base.sha256 is '0123', not 64 lower-case"),
        (BASE + f"sha256 = '{SHA.upper()}'\n" + DELTA, "not 64 lower-case"),
        (BASE + f"sha256 = ['{SHA}', 5]\n" + DELTA, "base.sha256 is 5, not 64 lower-case"),
        (BASE + "sha256 = []\n" + DELTA, "base.sha256 is [], not 64 lower-case"),
        (BASE + "prompt = 'plian'\n" + DELTA, "base.prompt is 'plian' (did you mean plain?)"),
        (BASE + "source = 1\n" + DELTA, "base.source is 1, not a text"),
        (BASE + "end_tokens = 'x'\n" + DELTA, "base.end_tokens is 'x', not a list of token texts"),
        (BASE + "end_tokens = [true]\n" + DELTA, "base.end_tokens is [True], not a list"),
        (BASE + "adopt = [1]\n" + DELTA, "base.adopt: only a tuned model adopts tokens; write it"),
        (DELTA.replace("r.gguf\"", "r.gguf\", adopt = []"), "delta.d.reference.adopt: only a tun"),
        (DELTA.replace("t.gguf\"", "t.gguf\", adopt = 5"), "delta.d.tuned.adopt is 5, not a list"),
        (DELTA.replace("t.gguf\"", "t.gguf\", adopt = [1.0]"), "tuned.adopt is [1.0], not a list"),
        (BASE + "template_kwargs = 1\n" + DELTA, "base.template_kwargs is 1, not a table"),
        (BASE + "template_kwargs.a = nan\n" + DELTA, "base.template_kwargs has nan, which"),
        (BASE + "template_kwargs.a = 1999-01-01\n" + DELTA, "base.template_kwargs has datetime"),
        (BASE + "template_kwargs.tools = []\n" + DELTA, "base.template_kwargs has 'tools', which"),
        (DELTA.replace("reference", "referense"), "unknown key `delta.d.referense` (did you mean"),
        ("[delta.d]\ntuned = { file = 't' }\n", "delta.d lacks `reference`"),
        ("[delta.d]\nreference = { file = 't' }\n", "delta.d lacks `tuned`"),
        (DELTA + "weight = -0.5\n", "delta.d.weight is -0.5, not a finite number"),
        (DELTA + "weight = nan\n", "delta.d.weight is nan, not a finite number"),
        (DELTA + "weight = inf\n", "delta.d.weight is inf, not a finite number"),
        (DELTA + "weight = true\n", "delta.d.weight is True, not a finite number"),
        (DELTA + "weight = '1'\n", "delta.d.weight is '1', not a finite number"),
        (DELTA.replace("delta.d", "delta.'a=b'"), "delta.a=b: use letters, digits"),
        (DELTA.replace("file = \"t", "lora = \"t"), "delta.d.tuned.on is None; write on ="),
        (DELTA.replace("file = \"t", "on = \"base\", lora = \"t"), "tuned.on is 'base'; write"),
        (DELTA.replace("file = \"t", "on = \"base\", file = \"t"), "key `delta.d.tuned.on`"),
        (DELTA.replace("file = \"r", "lora = \"r"), "unknown key `delta.d.reference.lora`"),
        ("name = ", "is not valid TOML (Invalid value"),
        ("a = " + "[" * 20_000, "is not valid TOML"),
        ("a = " + "1" * 5_000, "is not valid TOML"),
        (DELTA + "weight = 0x" + "f" * 5_000, "is not valid TOML"),
        (DELTA + "[provenance]\nnumber = 0x" + "f" * 5_000, "is not valid TOML"),
        ("#" * (1 << 20) + "#", "is larger than"),
    ],
)  # fmt: skip
def test_refusals_name_the_key_and_the_value(tmp_path: Path, text: str, part: str) -> None:
    assert part in refusal(tmp_path, text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_editor_of_windows_may_have_written_a_recipe(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(WHOLE.replace("\n", "\r\n").encode(encoding))
    assert load_recipe(path) == load_recipe(write_toml(tmp_path, WHOLE))


def test_a_path_may_hold_whatever_a_name_can_but_control_characters(tmp_path: Path) -> None:
    name = "a b\u3000\u00a0\u200d\u2028\ufeff😀\ufe0f\u0301\ue000\U000f0000.gguf"
    recipe = load_recipe(write_toml(tmp_path, BASE.replace("b.gguf", name) + DELTA))
    assert recipe.base is not None
    assert recipe.base.file == tmp_path / name
    for character in ["\\u0000", "\\n", "\\t", "\\u007f", "\\u0085", "\\u009b"]:
        text = BASE.replace("b.gguf", f"a{character}b") + DELTA
        assert "not the path of a GGUF file" in refusal(tmp_path, text)


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    recipe = load_recipe(write_toml(tmp_path, BASE.replace("b.", "~/m/b.") + DELTA))
    assert recipe.base is not None
    assert recipe.base.file == Path("/home/me/m/b.gguf")
    assert from_files("~/b.gguf", "a~", "./~c").roles()["base"].file == Path("/home/me/b.gguf")
    text = BASE.replace("b.gguf", "~nobody-here/b.gguf") + DELTA
    assert "base.file: no home directory is known for '~nobody-here/b" in refusal(tmp_path, text)
    odd = from_files(tmp_path / "~b.gguf", tmp_path / "~", tmp_path / "a~")
    again = load_recipe(write_toml(tmp_path, to_toml(odd, tmp_path)))
    assert [spec.file for spec in again.roles().values()] == [
        spec.file for spec in odd.roles().values()
    ]


def test_a_model_is_not_a_recipe_and_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF\3\0\0\0\xff")
    with pytest.raises(RecipeError, match=r"is one model .* take --base, --tuned and --reference"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=r"Is a directory.*edge-eft convert"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="before the prompt"):
        load_recipe("What is the capital of Peru?")


def test_a_path_that_is_not_utf8_cannot_be_written(tmp_path: Path) -> None:
    """TOML has no such texts: what was written could not be read again."""
    recipe = from_files("b.gguf", "t.gguf", "r.gguf")
    recipe = replace(recipe, provenance={"command": "convert --out caf\udce9"})
    again = load_recipe(write_toml(tmp_path, to_toml(recipe, tmp_path)))
    assert again.provenance["command"] == "convert --out caf\\udce9", "for people"
    recipe = from_files(tmp_path / "caf\udce9.gguf", "t.gguf", "r.gguf")
    with pytest.raises(RecipeError, match="is not UTF-8"):
        to_toml(recipe, tmp_path)


HUB = (
    f'source = {{ repo = "o/n-GGUF", file = "b.Q8_0.gguf", revision = "{SHA[:40]}", '
    'size = 5000000000, gated = true, confidence = "named" }\n'
)


def test_a_model_without_a_file_is_one_to_pull(tmp_path: Path) -> None:
    path = write_toml(tmp_path, f"[base]\n{HUB}{DELTA}[instruct]\n{HUB}")
    recipe = load_recipe(path)
    source = HubFile("o/n-GGUF", "b.Q8_0.gguf", SHA[:40], 5_000_000_000, True, "named")
    assert recipe.base == recipe.instruct == ModelSpec("b.Q8_0.gguf", source=source)
    assert recipe.base.needs_pull
    assert not recipe.deltas["d"].tuned.needs_pull
    assert list(recipe.roles()) == ["base", "tuned:d", "reference:d"]
    with pytest.raises(
        RecipeError, match=r"base not on this machine yet; .* edge-eft pull .*mine\.toml"
    ):
        check_here(recipe)
    again = load_recipe(write_toml(tmp_path, to_toml(recipe, tmp_path)))
    assert again == recipe


def test_a_pulled_model_has_a_file_and_its_place_on_the_hub(tmp_path: Path) -> None:
    recipe = load_recipe(write_toml(tmp_path, f"{BASE}{HUB}{DELTA}"))
    assert recipe.base.file == tmp_path / "b.gguf"
    assert not recipe.base.needs_pull
    assert load_recipe(write_toml(tmp_path, to_toml(recipe, tmp_path))) == recipe


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ('{ repo = "o/n" }', "base.source lacks `file`; write { repo"),
        ('{ file = "b.gguf" }', "base.source lacks `repo`"),
        ('{ repo = "o/n", file = "b.gguf", hash = "a" }', "unknown key `base.source.hash`"),
        ('{ repo = "../n", file = "b.gguf" }', "base.source: repo is '../n', not the name"),
        ('{ repo = "o/n", file = "b.gguf", size = "5G" }', "base.source: size is '5G'"),
        ("3", "base.source is 3, not a text"),
    ],
)
def test_a_place_on_the_hub_is_read_strictly(tmp_path: Path, source: str, seen: str) -> None:
    assert seen in refusal(tmp_path, f"[base]\nsource = {source}\n{DELTA}")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"name = \xff")
    with pytest.raises(RecipeError, match="is not valid TOML"):
        load_recipe(path)


EMBEDDED = Path(edge_eft.__file__).parents[1] / "models" / "atlas.toml"


@pytest.mark.skipif(not EMBEDDED.is_file(), reason="needs the atlas family")
def test_the_embedded_recipe_is_written_as_it_stands() -> None:
    text = to_toml(load_recipe(EMBEDDED), EMBEDDED.parent)
    assert f"# Written by edge-eft convert.\n{text}" == EMBEDDED.read_text("utf-8")


def test_only_files_below_the_recipe_get_relative_paths(tmp_path: Path) -> None:
    recipe = from_files(tmp_path / "a" / "b.gguf", tmp_path / "t.gguf", "/models/r.gguf")
    text = to_toml(recipe, tmp_path / "a")
    assert 'file = "b.gguf"' in text
    assert f'file = "{tmp_path}/t.gguf"' in text
    assert 'file = "/models/r.gguf"' in text
    assert "[provenance]" not in text


TEXTS = st.text(max_size=12) | st.sampled_from(['a "b" \\c', "a\nb\r\tc", "β\u2028\x7f\0", "'"])
PROMPTS = st.sampled_from(["plain", "template", "chatml"]) | TEXTS.map("{{{{ m }}}}\n{}".format)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    TEXTS | st.booleans() | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
WORDS = st.text("aZ0._-", min_size=1, max_size=5).map("d{}".format)


@st.composite
def recipes(draw: st.DrawFn, folder: Path) -> Recipe:
    """Return a recipe as `load_recipe` gives it, for a file in `folder`."""
    files = st.sampled_from([folder / "x.gguf", folder / 'a b/ü"\\.gguf', Path("/models/z.gguf")])
    tokens = st.lists(TEXTS | st.integers(0, 9), max_size=2).map(tuple)
    fields = {
        "sha256": st.sampled_from([None, SHA, (SHA, SHA[::-1])]),
        "source": st.none() | TEXTS,
        "end_tokens": tokens,
        "template_kwargs": st.dictionaries(st.sampled_from("äb"), VALUES),
    }
    models = st.builds(ModelSpec, files, prompt=PROMPTS, **fields)
    references = st.builds(ModelSpec, files, prompt=st.none() | PROMPTS, **fields)
    deltas = {}
    for name in draw(st.sets(WORDS, min_size=1, max_size=3)):
        reference, tuned = draw(references), replace(draw(models), adopt=draw(tokens))
        if draw(st.booleans()):
            tuned = replace(tuned, file=reference.file, lora=draw(files))
        weight = draw(st.floats(0, allow_nan=False, allow_infinity=False))
        deltas[name] = Delta(name, weight, tuned, reference)
    return Recipe(
        name=draw(TEXTS),
        description=draw(TEXTS),
        license=draw(TEXTS),
        n_ctx=draw(st.none() | st.integers(1, 1 << 24)),
        base=draw(st.none() | models),
        deltas=deltas,
        path=folder / "mine.toml",
        provenance=draw(st.dictionaries(TEXTS, TEXTS, max_size=3)),
    )


@given(st.data())
def test_what_is_written_reads_again_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    recipe = data.draw(recipes(folder))
    assert load_recipe(write_toml(folder, to_toml(recipe, folder))) == recipe
