"""pulled: models of the hub's cache are told from others, missed by name, and leave it alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.hub_cache import COMMIT, OTHER_COMMIT, cached, files_below, pulled_spec, recipe_of
from huggingface_hub import scan_cache_dir

from edge_eft.errors import RecipeError
from edge_eft.files.hub_file import HubFile
from edge_eft.files.pulled import check_here, forget, is_cached, model_files
from edge_eft.files.recipe import ModelSpec, Recipe
from edge_eft.files.recipe_names import save_recipe


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "precious.gguf"
    path.write_bytes(b"p" * 100)
    return path


@pytest.mark.parametrize("links", [True, False], ids=["links", "plain files"])
def test_a_file_leaves_with_its_content_and_the_empty_folders(cache: Path, links: bool) -> None:
    path = cached(cache, "o/n", "sub/m.gguf", b"x" * 1000, links=links)
    stays = cached(cache, "o/other", "m.gguf", b"y")
    assert forget([path]) == 1000
    assert not (cache / "models--o--n").exists()
    assert stays.exists()
    assert forget([path]) == 0


def test_a_content_that_another_name_leads_to_stays(cache: Path) -> None:
    path = cached(cache, "o/n", "m.gguf", b"x" * 1000)
    newer = cached(cache, "o/n", "m.gguf", b"x" * 1000, commit=OTHER_COMMIT)
    ref = cache / "models--o--n" / "refs" / "main"
    assert forget([path]) == 0
    assert newer.read_bytes() == b"x" * 1000
    assert ref.read_text() == OTHER_COMMIT
    assert forget([newer]) == 1000


def test_what_others_have_in_the_cache_stays(cache: Path) -> None:
    path = cached(cache, "o/n", "m.gguf", b"x")
    cached(cache, "o/n", "config.json", b"{}")
    partial = cache / "models--o--n" / "blobs" / ("f" * 64 + ".incomplete")
    partial.write_bytes(b"half")
    before = files_below(cache)
    assert forget([path]) == 1
    gone = before - files_below(cache)
    assert {name.split("/")[-1] for name in gone if "snapshots" in name} == {"m.gguf"}
    assert len(gone) == 2
    assert partial.exists()


def test_the_cache_is_whole_to_huggingface_hub_afterwards(cache: Path) -> None:
    path = cached(cache, "o/n", "sub/m.gguf", b"x" * 10)
    cached(cache, "o/n", "other.gguf", b"y")
    gone = cached(cache, "o/gone", "m.gguf", b"z")
    forget([path, gone])
    seen = scan_cache_dir(cache)
    assert not seen.warnings
    assert [(repo.repo_id, repo.size_on_disk) for repo in seen.repos] == [("o/n", 1)]


def test_a_hard_link_to_a_content_frees_nothing(cache: Path, tmp_path: Path) -> None:
    path = cached(cache, "o/n", "m.gguf", b"x" * 10)
    os.link(os.path.realpath(path), tmp_path / "mine.gguf")
    assert forget([path]) == 0
    assert (tmp_path / "mine.gguf").read_bytes() == b"x" * 10


def test_a_cache_that_lies_behind_a_link_is_one(cache: Path, tmp_path: Path) -> None:
    """Large caches are moved to another disk so."""
    cached(tmp_path / "disk", "o/n", "m.gguf", b"x" * 10)
    cache.symlink_to(tmp_path / "disk")
    path = cache / "models--o--n" / "snapshots" / COMMIT / "m.gguf"
    assert forget([path]) == 10


def _link_out(cache: Path, outside: Path) -> Path:
    path = cached(cache, "o/n", "m.gguf", b"x")
    path.unlink()
    path.symlink_to(outside)
    return path


def _link_up(cache: Path, outside: Path) -> Path:
    path = cached(cache, "o/n", "m.gguf", b"x")
    path.unlink()
    path.symlink_to(f"../../blobs/../../../{outside.name}")
    return path


def _other_repository(cache: Path, outside: Path) -> Path:
    theirs = Path(os.path.realpath(cached(cache, "o/theirs", "m.gguf", b"theirs")))
    path = cached(cache, "o/n", "m.gguf", b"x")
    path.unlink()
    path.symlink_to(os.path.relpath(theirs, path.parent))
    return path


def _blob_is_a_link(cache: Path, outside: Path) -> Path:
    path = cached(cache, "o/n", "m.gguf", b"x")
    blob = Path(os.path.realpath(path))
    blob.unlink()
    blob.symlink_to(outside)
    return path


def _folder_is_a_link(part: str) -> Callable[[Path, Path], Path]:
    def build(cache: Path, outside: Path) -> Path:
        path = cached(cache, "o/n", "m.gguf", b"x")
        there = cache / "models--o--n" / part
        there.rename(outside.parent / "elsewhere")
        there.symlink_to(outside.parent / "elsewhere")
        return path

    return build


def _upward(cache: Path, outside: Path) -> Path:
    path = cached(cache, "o/n", "m.gguf", b"x")
    return path.parent / ".." / ".." / ".." / ".." / outside.name


def _directory(cache: Path, outside: Path) -> Path:
    return cached(cache, "o/n", "sub/m.gguf", b"x").parent


def _blob(cache: Path, outside: Path) -> Path:
    return Path(os.path.realpath(cached(cache, "o/n", "m.gguf", b"x")))


def _no_commit(cache: Path, outside: Path) -> Path:
    path = cached(cache, "o/n", "m.gguf", b"x")
    path.parent.rename(path.parent.with_name("main"))
    return path.parent.with_name("main") / "m.gguf"


HOSTILE = {
    "a link out": _link_out,
    "a link upward": _link_up,
    "a link into another repository": _other_repository,
    "a content that is a link": _blob_is_a_link,
    "blobs elsewhere": _folder_is_a_link("blobs"),
    "snapshots elsewhere": _folder_is_a_link("snapshots"),
    "a commit elsewhere": _folder_is_a_link(f"snapshots/{COMMIT}"),
    "a path upward": _upward,
    "a directory": _directory,
    "a content itself": _blob,
    "no commit": _no_commit,
    "a file elsewhere": lambda cache, outside: outside,
    "a name that no file can have": lambda cache, outside: cache / ("n" * 300),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_is_removed_but_a_name_in_a_snapshot_and_its_own_content(
    cache: Path, outside: Path, tmp_path: Path, case: str
) -> None:
    path = HOSTILE[case](cache, outside)
    before = files_below(tmp_path)
    forget([path])
    gone = before - files_below(tmp_path)
    name = f"hub/models--o--n/snapshots/{COMMIT}/m.gguf"
    links = {"a link out", "a link upward", "a link into another repository"}
    links |= {"a content that is a link", "blobs elsewhere"}
    allowed = {name, "hub/models--o--n/refs/main"} if case in links else set()
    assert gone <= allowed, gone
    assert outside.read_bytes() == b"p" * 100


def test_a_file_that_may_not_be_removed_is_an_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached(cache, "o/n", "m.gguf", b"x")

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(PermissionError):
        forget([path])
    assert path.read_bytes() == b"x"


def test_a_file_is_the_hubs_only_where_its_source_says_so(cache: Path, tmp_path: Path) -> None:
    spec = pulled_spec(cache, "o/n", b"x")
    assert is_cached(spec)
    assert isinstance(spec.source, HubFile)
    for other in (
        replace(spec, source=None),
        replace(spec, source="o/n"),
        replace(spec, source=replace(spec.source, repo="o/m")),
        replace(spec, source=replace(spec.source, file="n.gguf")),
        replace(spec, file=tmp_path / "m.Q8_0.gguf"),
        replace(spec, file=Path("m.Q8_0.gguf")),
    ):
        assert not is_cached(other)


def _pulled(cache: Path) -> tuple[Recipe, Path]:
    base, tuned, reference = (
        pulled_spec(cache, f"o/{role}", role.encode()) for role in ("base", "tuned", "reference")
    )
    recipe = recipe_of("mine", base, tuned, reference)
    return replace(recipe, path=save_recipe(recipe)), base.file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("home")
def test_a_file_that_is_gone_is_told_with_the_command_that_gets_it(
    cache: Path, tmp_path: Path
) -> None:
    recipe, base = _pulled(cache)
    check_here(recipe)
    forget([base])
    with pytest.raises(RecipeError, match=r"file of base .* edge-eft pull mine$"):
        check_here(recipe)
    elsewhere = replace(recipe, path=tmp_path / "a b.toml")
    with pytest.raises(RecipeError, match=r"edge-eft pull '.*a b\.toml'$"):
        check_here(elsewhere)


@pytest.mark.usefixtures("home")
def test_what_is_to_be_pulled_is_told_with_its_size() -> None:
    spec = ModelSpec("m.gguf", source=HubFile("o/n", "m.gguf", size=5_000_000_000))
    unknown = ModelSpec("u.gguf", source=HubFile("o/n", "u.gguf"))
    recipe = recipe_of("large", spec, spec, spec)
    with pytest.raises(RecipeError, match=r"edge-eft pull large \(5\.0 GB to fetch\)$"):
        check_here(recipe)
    with pytest.raises(RecipeError, match=r"base, tuned:chat, reference:chat .* pull large$"):
        check_here(replace(recipe, base=unknown))


def test_all_parts_of_a_split_model_are_its_files(tmp_path: Path) -> None:
    spec = ModelSpec(tmp_path / "m-00001-of-00003.gguf")
    assert [path.name for path in model_files(spec)] == [
        f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)
    ]
