"""Finding models in other programs' stores, and what hostile manifests and links lead to."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.model_tree import Shape, Stores, Tokens, Written, adapter

from edge_eft.errors import RecipeError
from edge_eft.match import stores as stores_module
from edge_eft.match.candidates import read_candidates
from edge_eft.match.store_places import store_places
from edge_eft.match.stores import search

SMALL = Shape("llama", 2, 64, 128, Tokens(9, 400, 390), 1)
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of Unix")
HEX = "0123456789abcdef" * 4
MODEL = "application/vnd.ollama.image.model"


@pytest.fixture
def kept(tmp_path):
    """A home with nothing in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    return Stores(folder)


def found_in(kept, *directories, **environment):
    return search(directories, environment=kept.environment() | environment)


def names(findings):
    return sorted((file.owner, file.name, file.path.name) for file in findings.files)


_OPENED: list[list[str]] = []


def _on_open(event, arguments):
    if _OPENED and event in ("open", "os.scandir", "os.listdir"):
        _OPENED[-1].append(os.path.realpath(os.fsdecode(arguments[0] or ".")))


@contextmanager
def opened():
    """Yield the list of what is opened or listed meanwhile, links followed."""
    if not getattr(opened, "hooked", False):
        sys.addaudithook(_on_open)
        opened.hooked = True
    _OPENED.append([])
    try:
        yield _OPENED[-1]
    finally:
        _OPENED.pop()


def contents(folder):
    """What is below a folder, and when it was changed."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")
    }


def test_each_store_is_read_as_its_program_writes_it(kept):
    model = Written(SMALL)
    kept.on_hub("owner/repo-GGUF", "hub-model.gguf", model)
    kept.in_lm_studio("owner/other-GGUF", "studio-model.gguf", model)
    kept.in_ollama("smol:135m", model)
    model.write(kept.home / ".cache" / "llama.cpp" / "owner_repo_cpp-model.gguf")
    model.write(kept.home / "jan" / "models" / "jan" / "model.gguf")
    found = found_in(kept)
    assert [(owner, name) for owner, name, _ in names(found)] == [
        ("Hugging Face", "owner/repo-GGUF"),
        ("Jan", "jan"),
        ("LM Studio", "other-GGUF"),
        ("Ollama", "smol:135m"),
        ("llama.cpp", "llama.cpp"),
    ]
    assert not found.notes
    there = {place.owner for place in found.places if place.there}
    assert there == {"Hugging Face", "LM Studio", "Ollama", "llama.cpp", "Jan"}


def test_variables_and_settings_name_other_places(kept, tmp_path):
    model = Written(SMALL)
    model.write(tmp_path / "studio" / "a" / "b" / "x.gguf")
    settings = kept.home / ".lmstudio" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "studio")}))
    moved = Stores(kept.home)
    moved.ollama, moved.hub = tmp_path / "ollama", tmp_path / "hub"
    moved.in_ollama("a:b", model)
    moved.on_hub("o/r", "y.gguf", model)
    model.write(tmp_path / "cpp" / "z.gguf")
    found = found_in(
        kept,
        OLLAMA_MODELS=str(tmp_path / "ollama"),
        HF_HUB_CACHE=str(tmp_path / "hub"),
        LLAMA_CACHE=str(tmp_path / "cpp"),
    )
    owners = [owner for owner, *_ in names(found)]
    assert owners == ["Hugging Face", "LM Studio", "Ollama", "llama.cpp"]


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")]
)
def test_the_hub_cache_is_where_huggingface_hub_has_it(kept, tmp_path, variable, below):
    places = store_places(kept.environment() | {variable: str(tmp_path / "x")})
    hub = next(place.path for place in places if place.owner == "Hugging Face")
    assert hub == tmp_path / "x" / below


@pytest.mark.parametrize(
    "settings",
    [
        "{",
        "[]",
        '{"downloadsFolder": 3}',
        '{"downloadsFolder": "relative/../.."}',
        '{"downloadsFolder": "/"}',
        '{"downloadsFolder": "/.."}',
        '{"downloadsFolder": "/a\\u0000b"}',
        '{"downloadsFolder": "/a\\u001b[2Jb"}',
        "[" * 100_000,
    ],
)
def test_settings_of_lm_studio_that_name_no_folder_are_passed_over(kept, settings):
    path = kept.home / ".lmstudio" / "settings.json"
    path.parent.mkdir()
    path.write_text(settings)
    studio = [p.path for p in store_places(kept.environment()) if p.owner == "LM Studio"]
    assert studio == [kept.lm_studio, kept.home / ".cache" / "lm-studio" / "models"]


def _digest(text):
    return {"layers": [{"mediaType": MODEL, "digest": text, "size": 1}]}


HOSTILE = {
    "up": _digest("sha256:../../../../outside/secret.gguf"),
    "up after a hash": _digest(f"sha256:{HEX}/../../../../../outside/secret.gguf"),
    "up alone": _digest("../../../outside/secret.gguf"),
    "absolute": _digest("{outside}/secret.gguf"),
    "absolute after sha256": _digest("sha256:{outside}/secret.gguf"),
    "drive": _digest("C:\\outside\\secret.gguf"),
    "share": _digest("\\\\server\\share\\secret.gguf"),
    "backslashes": _digest("sha256:..\\..\\..\\outside\\secret.gguf"),
    "device": _digest("NUL"),
    "device as hash": _digest("sha256:CON"),
    "dash": _digest(f"sha256-{HEX}"),
    "upper case": _digest(f"sha256:{HEX.upper()}"),
    "upper-case kind": _digest(f"SHA256:{HEX}"),
    "short": _digest(f"sha256:{HEX[:-1]}"),
    "long": _digest(f"sha256:{HEX}0"),
    "line end": _digest(f"sha256:{HEX}\n"),
    "nul": _digest(f"sha256:{HEX}\0"),
    "other digits": _digest("sha256:" + "٠" * 64),
    "md5": _digest("md5:0123456789abcdef0123456789abcdef"),
    "empty digest": _digest(""),
    "number": _digest(7),
    "null": _digest(None),
    "list": _digest([f"sha256:{HEX}"]),
    "not there": _digest(f"sha256:{HEX}"),
    "from": {"layers": [{"mediaType": MODEL, "from": "{outside}/secret.gguf", "digest": "x"}]},
    "no layers": {},
    "layers are a text": {"layers": "sha256"},
    "a layer is a text": {"layers": ["{outside}/secret.gguf"]},
    "many layers": {"layers": [{"mediaType": MODEL, "digest": f"sha256:{HEX}"}] * 100},
    "list of manifests": [_digest(f"sha256:{HEX}")],
    "no JSON": "{outside}",
    "nothing": "",
    "deep": "[" * 100_000,
    "large": json.dumps({"layers": [], "x": "y" * (2 << 20)}),
    "half a character": '{"layers": [{"mediaType": "\\ud800", "digest": "\\ud800"}]}',
}


def _outside(tmp_path):
    return Written(SMALL).write(tmp_path / "outside" / "secret.gguf").parent


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_manifest_of_ollama_leads_nowhere(kept, tmp_path, case):
    outside, good = _outside(tmp_path), kept.in_ollama("good:1", Written(SMALL))
    content = HOSTILE[case]
    text = content if isinstance(content, str) else json.dumps(content)
    kept.manifest("evil:1", text.replace("{outside}", str(outside)))
    before = contents(tmp_path)
    with opened() as paths:
        found = found_in(kept)
        read_candidates(found.files)
    assert [file.path for file in found.files] == [good]
    assert not [path for path in paths if path.startswith(str(outside))]
    assert len(found.notes) == (case != "half a character"), found.notes
    assert contents(tmp_path) == before


def _link_blob(kept, outside):
    (kept.ollama / "blobs" / f"sha256-{HEX}").symlink_to(outside / "secret.gguf")
    kept.manifest("evil:1", _digest(f"sha256:{HEX}"))


def _link_manifest(kept, outside):
    (outside / "1").write_text(json.dumps(_digest(f"sha256:{HEX}")))
    path = kept.manifest("evil:1", "x")
    path.unlink()
    path.symlink_to(outside / "1")


def _link_folder_of_manifests(kept, outside):
    (outside / "m").mkdir()
    (outside / "m" / "1").write_text(json.dumps(_digest(f"sha256:{HEX}")))
    folder = kept.manifest("evil:1", "x").parent
    (folder / "1").unlink()
    (folder.parent / "linked").symlink_to(outside / "m")


def _link_in_hub(kept, outside):
    path = kept.hub / "models--o--r" / "snapshots" / HEX[:40] / "x.gguf"
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / "secret.gguf")


def _link_up(kept, outside):
    path = kept.lm_studio / "o" / "r" / "x.gguf"
    path.parent.mkdir(parents=True)
    path.symlink_to(os.path.relpath(outside / "secret.gguf", path.parent))


def _link_folder(kept, outside):
    kept.lm_studio.mkdir(parents=True)
    (kept.lm_studio / "o").symlink_to(outside)


def _link_second_part(kept, outside):
    Written(SMALL).write(kept.lm_studio / "o" / "r" / "x.gguf", n_parts=2)
    part = kept.lm_studio / "o" / "r" / "x-00002-of-00002.gguf"
    part.rename(outside / part.name)
    part.symlink_to(outside / part.name)


def _pipe_as_blob(kept, outside):
    os.mkfifo(kept.ollama / "blobs" / f"sha256-{HEX}")
    kept.manifest("evil:1", _digest(f"sha256:{HEX}"))


def _folder_as_blob(kept, outside):
    (kept.ollama / "blobs" / f"sha256-{HEX}").mkdir()
    kept.manifest("evil:1", _digest(f"sha256:{HEX}"))


def _device(kept, outside):
    kept.lm_studio.mkdir(parents=True)
    (kept.lm_studio / "x.gguf").symlink_to("/dev/zero")


def _wrong_size(kept, outside):
    (kept.ollama / "blobs" / f"sha256-{HEX}").write_bytes(b"GGUF")
    kept.manifest("evil:1", _digest(f"sha256:{HEX}"))


def _control_characters(kept, outside):
    Written(SMALL).write(kept.lm_studio / "o" / "x\x1b]0;y\x07\n.gguf")


@pytest.mark.parametrize(
    "set_up",
    [
        *(_link_blob, _link_manifest, _link_folder_of_manifests, _link_in_hub, _link_up),
        *(_link_folder, _link_second_part, _pipe_as_blob, _folder_as_blob, _device),
        *(_wrong_size, _control_characters),
    ],
    ids=lambda case: case.__name__.strip("_"),
)
def test_a_link_out_of_a_store_or_what_is_no_file_is_passed_over(kept, tmp_path, set_up):
    outside, good = _outside(tmp_path), kept.in_ollama("good:1", Written(SMALL))
    set_up(kept, outside)
    before = contents(tmp_path)
    with opened() as paths:
        found = found_in(kept)
        read_candidates(found.files)
    assert [file.path for file in found.files] == [good]
    assert not [path for path in paths if path.startswith((str(outside), "/dev/zero"))]
    assert len(found.notes) == (set_up is not _link_folder_of_manifests), found.notes
    assert contents(tmp_path) == before


def test_a_link_into_another_place_that_is_searched_is_followed(kept, tmp_path):
    blob = kept.in_ollama("smol:1", Written(SMALL))
    link = kept.lm_studio / "ollama" / "smol" / "smol.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    found = found_in(kept)
    assert [file.path for file in found.files] == [link], "once, by the first name"
    assert not found.notes


def test_folders_of_ollama_may_be_links_into_another_place_that_is_searched(kept, tmp_path):
    blob = kept.in_ollama("smol:1", Written(SMALL))
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("manifests", "blobs"):
        (kept.ollama / name).rename(disk / name)
        (kept.ollama / name).symlink_to(disk / name)
    assert not found_in(kept).files
    found = found_in(kept, disk)
    assert [file.name for file in found.files] == ["smol:1"]
    assert os.path.realpath(found.files[0].path) == str(disk / "blobs" / blob.name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_store_of_another_user_is_spoken_of(kept):
    kept.in_ollama("smol:1", Written(SMALL))
    kept.ollama.parent.chmod(0)
    found = found_in(kept)
    kept.ollama.parent.chmod(0o700)
    (note,) = found.notes
    assert "it belongs to another user" in note


def test_an_adapter_of_ollama_comes_with_the_model_that_it_is_put_on(kept):
    blob = kept.in_ollama("smol:1", Written(SMALL))
    kept.in_ollama("mine:1", blob, lora=adapter(kept.home / "lora", SMALL))
    found = {file.name: file for file in found_in(kept).files}
    assert found["mine:1"].adapter_on == blob
    assert found["smol:1"].path == blob


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("registry.ollama.ai", "library", "a", "1b"), "a:1b"),
        (("registry.ollama.ai", "me", "a", "1b"), "me/a:1b"),
        (("hf.co", "o", "r", "Q8_0"), "hf.co/o/r:Q8_0"),
    ],
)
def test_a_model_of_ollama_is_called_as_its_user_calls_it(kept, parts, name):
    kept.in_ollama("x:1", Written(SMALL))
    manifests = kept.ollama / "manifests"
    there = manifests / "registry.ollama.ai" / "library" / "x" / "1"
    path = manifests.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    there.rename(path)
    assert [file.name for file in found_in(kept).files] == [name]


def test_given_folders_are_searched_to_their_ends_and_loops_end(kept, tmp_path):
    own = tmp_path / "own"
    for name in ("a/x.gguf", "a/b/c/d/Y.GGUF", ".hidden/z.gguf"):
        Written(SMALL).write(own / name)
    (own / "a" / "loop").symlink_to(own)
    (own / "a" / "self.gguf").symlink_to("self.gguf")
    for i in range(3000):
        (own / "a" / f"{i}.txt").touch()
    found = found_in(kept, own, own / "a")
    assert sorted(file.path.name for file in found.files) == ["Y.GGUF", "x.gguf", "z.gguf"]
    assert len(found.notes) == 1
    assert "self.gguf" in found.notes[0]


def test_stores_inside_a_given_folder_are_read_as_stores(kept, tmp_path):
    moved = Stores(tmp_path / "disk")
    moved.in_ollama("a:1", Written(SMALL))
    moved.on_hub("o/r", "x.gguf", Written(SMALL))
    found = found_in(kept, tmp_path / "disk")
    assert sorted(file.name for file in found.files) == ["a:1", "o/r"]


def test_what_is_in_a_store_below_a_given_folder_keeps_the_name_it_has_there(kept):
    kept.in_lm_studio("x/y", "z.gguf", Written(SMALL))
    assert names(found_in(kept, kept.home)) == [("LM Studio", "y", "z.gguf")]


def test_a_search_ends_at_a_number_of_files(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(stores_module, "MAX_ENTRIES", 50)
    for i in range(100):
        (tmp_path / f"{i}.txt").touch()
    (note,) = found_in(kept, tmp_path).notes
    assert "more than 50 files" in note
    assert "narrower" in note


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_that_may_not_be_entered_is_said_and_passed_over(kept, tmp_path):
    Written(SMALL).write(tmp_path / "own" / "x.gguf")
    closed = tmp_path / "own" / "closed"
    closed.mkdir(mode=0)
    found = found_in(kept, tmp_path / "own")
    assert len(found.files) == 1
    assert f"{closed}: cannot be looked into (Permission denied)" in found.notes


def test_a_given_folder_that_is_none_is_refused(kept, tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(RecipeError, match="is a file; name the folder it is in"):
        found_in(kept, tmp_path / "x")
    with pytest.raises(RecipeError, match="not a folder here; check the path"):
        found_in(kept, tmp_path / "y")


def test_parts_of_a_split_model_are_one_and_a_lost_part_is_not_taken(kept, tmp_path):
    Written(SMALL).write(tmp_path / "own" / "x.gguf", n_parts=3)
    lost = Written(SMALL).write(tmp_path / "own" / "y.gguf", n_parts=3)
    lost.unlink()
    found = found_in(kept, tmp_path / "own")
    assert [file.path.name for file in found.files] == ["x-00001-of-00003.gguf"]
    assert Path(found.files[0].path).is_file()
