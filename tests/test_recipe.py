"""recipe, recipe_toml: what a file may say, what is refused in which words, writing, hashes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_eft
from edge_eft.errors import ModelFileError, RecipeError
from edge_eft.files import recipe as recipe_module
from edge_eft.files.recipe import Delta, ModelSpec, Recipe, from_files, verify
from edge_eft.files.recipe_toml import list_recipes, load_recipe, to_toml

SHA = "0123456789abcdef" * 4
WHOLE = f"""
name = "atlas"
description = "Geography"
license = "Apache-2.0"
n_ctx = 512

[base]
file = "atlas/base.gguf"
sha256 = "{SHA}"
prompt = "transcript"
source = "tools/train_atlas.py"

[delta.chat]
weight = 1
tuned = {{ file = "atlas/chat.gguf", sha256 = "{SHA}", prompt = "chatml" }}
reference = {{ file = "atlas/reference.gguf" }}

[delta.brief]
weight = 0.0
tuned = {{ lora = "atlas/brief.gguf", on = "reference", sha256 = "{SHA}" }}
reference = {{ file = "/models/reference.gguf", prompt = "{{{{ messages[0].content }}}}" }}

[provenance]
tool = "edge-eft convert"
numbers = [1, 2]
"""
BASE = '[base]\nfile = "b.gguf"\n'
DELTA = '[delta.d]\ntuned = { file = "t.gguf" }\nreference = { file = "r.gguf" }\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_whole_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    recipe = load_recipe(path)
    assert (recipe.name, recipe.description, recipe.license) == ("atlas", "Geography", "Apache-2.0")
    assert (recipe.n_ctx, recipe.path) == (512, path)
    assert recipe.base == ModelSpec(
        tmp_path / "atlas/base.gguf", SHA, "transcript", source="tools/train_atlas.py"
    )
    chat, brief = recipe.deltas["chat"], recipe.deltas["brief"]
    assert (chat.name, chat.weight, brief.weight) == ("chat", 1.0, 0.0)
    assert chat.tuned == ModelSpec(tmp_path / "atlas/chat.gguf", SHA, "chatml")
    assert chat.reference == ModelSpec(tmp_path / "atlas/reference.gguf")
    assert recipe.roles()["reference:chat"].prompt == "transcript", "as the base's"
    assert brief.reference.file == Path("/models/reference.gguf")
    assert brief.reference.prompt == "{{ messages[0].content }}"
    assert brief.tuned == ModelSpec(
        Path("/models/reference.gguf"), SHA, "template", lora=tmp_path / "atlas/brief.gguf"
    )
    assert recipe.provenance == {"tool": "edge-eft convert", "numbers": "[1, 2]"}
    assert list(recipe.roles()) == [
        "base", "tuned:chat", "reference:chat", "tuned:brief", "reference:brief",
    ]  # fmt: skip


def test_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, BASE + DELTA))
    assert (recipe.name, recipe.description, recipe.license, recipe.n_ctx) == ("mine", "", "", None)
    assert recipe.deltas["d"].weight == 1.0
    prompts = [spec.prompt for spec in recipe.roles().values()]
    assert prompts == ["plain", "template", "plain"]


def test_a_recipe_without_base_is_completed_by_with_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write(tmp_path, DELTA))
    assert recipe.base is None
    with pytest.raises(RecipeError, match="names no base model; give one: --base FILE"):
        recipe.roles()
    monkeypatch.chdir(tmp_path)
    whole = recipe.with_base("big.gguf")
    assert whole.base == ModelSpec(tmp_path / "big.gguf", None, "plain")
    assert whole.roles()["reference:d"].prompt == "plain"
    other = recipe.with_base("big.gguf", prompt="transcript")
    assert other.roles()["reference:d"].prompt == "transcript"
    again = other.with_base("big.gguf", prompt="chatml")
    assert again.roles()["reference:d"].prompt == "chatml", "it follows the base"
    assert recipe.base is None, "the first recipe is unchanged"
    with pytest.raises(RecipeError, match="did you mean plain"):
        recipe.with_base("big.gguf", prompt="plian")


def test_another_base_keeps_the_prompt_and_drops_the_hash(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, WHOLE)).with_base("/big.gguf")
    assert recipe.base == ModelSpec(Path("/big.gguf"), None, "transcript")


def test_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = from_files("b.gguf", "t.gguf", "/r.gguf", prompt="chatml")
    assert recipe.roles() == {
        "base": ModelSpec(tmp_path / "b.gguf", prompt="chatml"),
        "tuned:tuned": ModelSpec(tmp_path / "t.gguf", prompt="template"),
        "reference:tuned": ModelSpec(Path("/r.gguf"), prompt="chatml"),
    }
    assert recipe.deltas["tuned"].weight == 1.0
    with pytest.raises(RecipeError, match="prompt is 'chat-ml'"):
        from_files("b.gguf", "t.gguf", "r.gguf", prompt="chat-ml")


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
        (BASE + "prompt = 'plian'\n" + DELTA, "base.prompt is 'plian' (did you mean plain?)"),
        (BASE + "source = 1\n" + DELTA, "base.source is 1, not a text"),
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


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"GGUF\3\0\0\0\xff")
    with pytest.raises(RecipeError, match="is not valid TOML"):
        load_recipe(path)


def test_embedded_recipes_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / "edge_eft"
    (installed / "models").mkdir(parents=True)
    (installed / "models" / "atlas.toml").write_text(DELTA)
    monkeypatch.setattr(edge_eft, "__file__", str(installed / "__init__.py"))
    assert list_recipes() == {"atlas": installed / "models" / "atlas.toml"}
    assert load_recipe("atlas").path == installed / "models" / "atlas.toml"
    with pytest.raises(RecipeError, match=r"'atlsa' cannot be read .* \(did you mean atlas\?\)"):
        load_recipe("atlsa")
    for place in (tmp_path, "nul\0", tmp_path / "none.toml"):
        with pytest.raises(RecipeError, match=r"cannot be read .* embedded recipe \(atlas\)"):
            load_recipe(place)


def test_models_beside_the_package_are_ours_in_a_checkout_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In site-packages a folder `models` belongs to another package."""
    (tmp_path / "edge_eft").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "atlas.toml").write_text(DELTA)
    monkeypatch.setattr(edge_eft, "__file__", str(tmp_path / "edge_eft" / "__init__.py"))
    assert list_recipes() == {}
    (tmp_path / "pyproject.toml").write_text("")
    assert list(list_recipes()) == ["atlas"]


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
WORDS = st.text("aZ0._-", min_size=1, max_size=5).map("d{}".format)


@st.composite
def recipes(draw: st.DrawFn, folder: Path) -> Recipe:
    """Return a recipe as `load_recipe` gives it, for a file in `folder`."""
    files = st.sampled_from([folder / "x.gguf", folder / 'a b/ü"\\.gguf', Path("/models/z.gguf")])
    fields = {"sha256": st.sampled_from([None, SHA]), "source": st.none() | TEXTS}
    models = st.builds(ModelSpec, files, prompt=PROMPTS, **fields)
    references = st.builds(ModelSpec, files, prompt=st.none() | PROMPTS, **fields)
    deltas = {}
    for name in draw(st.sets(WORDS, min_size=1, max_size=3)):
        reference, tuned = draw(references), draw(models)
        if draw(st.booleans()):
            tuned = replace(tuned, file=reference.file, lora=draw(files))
        weight = draw(st.floats(0, allow_nan=False, allow_infinity=False))
        deltas[name] = Delta(name, weight, tuned, reference)
    return Recipe(
        name=draw(TEXTS),
        description=draw(TEXTS),
        license=draw(TEXTS),
        n_ctx=draw(st.none() | st.integers(1, 1 << 40)),
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
    assert load_recipe(write(folder, to_toml(recipe, folder))) == recipe


def files_with_hashes(folder: Path) -> Path:
    for name in ("b", "t", "r"):
        (folder / f"{name}.gguf").write_bytes(name.encode() * 1000)
    digest = {
        name: hashlib.sha256((folder / f"{name}.gguf").read_bytes()).hexdigest()
        for name in ("b", "t", "r")
    }
    return write(
        folder,
        f'[base]\nfile = "b.gguf"\nsha256 = "{digest["b"]}"\n[delta.d]\n'
        f'tuned = {{ lora = "t.gguf", on = "reference", sha256 = "{digest["t"]}" }}\n'
        f'reference = {{ file = "r.gguf", sha256 = "{digest["r"]}" }}\n',
    )


def test_verify_passes_what_is_as_stated(tmp_path: Path) -> None:
    assert verify(load_recipe(files_with_hashes(tmp_path))) == ()


@pytest.mark.parametrize("name", ["b", "t", "r"])
def test_verify_names_a_changed_file_and_both_digests(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(files_with_hashes(tmp_path))
    stated = {(spec.lora or spec.file).stem: spec.sha256 for spec in recipe.roles().values()}[name]
    (tmp_path / f"{name}.gguf").write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(ModelFileError) as caught:
        verify(recipe)
    for part in (f"{name}.gguf: ", found[:12], str(stated)[:12], "get it again"):
        assert part in str(caught.value)


def test_verify_without_base_and_with_missing_files(tmp_path: Path) -> None:
    text = f'[delta.d]\ntuned = {{ file = "t.gguf", sha256 = "{SHA}" }}\n'
    recipe = load_recipe(write(tmp_path, text + 'reference = { file = "r.gguf" }\n'))
    with pytest.raises(ModelFileError, match=r"t\.gguf: cannot be read"):
        verify(recipe)


def test_large_files_are_hashed_on_demand_and_named_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(files_with_hashes(tmp_path))
    monkeypatch.setattr(recipe_module, "VERIFIED_AT_LOAD", 999)
    (tmp_path / "b.gguf").write_bytes(b"x" * 1000)
    assert verify(recipe) == tuple(tmp_path / f"{name}.gguf" for name in "brt")
    with pytest.raises(ModelFileError, match=r"b\.gguf: sha256 is"):
        verify(recipe, all_sizes=True)
