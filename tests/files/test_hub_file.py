"""hub_file: names from strangers' recipes, none of which may lead out of a repository."""

import pytest

from edge_eft.errors import RecipeError
from edge_eft.files.hub_file import HubFile

REVISION = "0123456789" * 4


def test_a_place_on_the_hub_is_named_as_people_do() -> None:
    assert str(HubFile("owner/name-GGUF", "sub/x.Q8_0.gguf", REVISION, 5)) == (
        "owner/name-GGUF/sub/x.Q8_0.gguf"
    )


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "name",
        "a/b/c",
        "../b",
        "a/..",
        "/a/b",
        "a/b/",
        "a\\b",
        "a/b.git",
        "a--b/c",
        "a/b.",
        "~/b",
        "a/b c",
        "a/b\n",
        "https://x/y",
        "é/b",
        "a/" + "b" * 97,
        ".a/b",
        "a/b..c",
        None,
        3,
    ],
)
def test_a_name_that_is_no_repository_is_refused(repo: object) -> None:
    with pytest.raises(RecipeError, match="repo is"):
        HubFile(repo, "x.gguf")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "file",
    [
        "",
        "x",
        "x.bin",
        ".gguf/x",
        "../x.gguf",
        "a/../x.gguf",
        "/x.gguf",
        "a//x.gguf",
        "./x.gguf",
        "a\\x.gguf",
        "C:x.gguf",
        "C:/x.gguf",
        "nul.gguf",
        "a/CON/x.gguf",
        "com1.x.gguf",
        "~/x.gguf",
        "x\0.gguf",
        "x\n.gguf",
        "a /x.gguf",
        "a./x.gguf",
        "x.gguf ",
        "x?.gguf",
        "\ud800.gguf",
        "a" * 256 + ".gguf",
        "a/" * 600 + "x.gguf",
        " x.gguf",
        None,
        b"x.gguf",
    ],
)
def test_a_path_that_may_lead_elsewhere_is_refused(file: object) -> None:
    with pytest.raises(RecipeError, match="file is"):
        HubFile("o/n", file)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        *({"revision": each} for each in ("main", REVISION.upper() + "A", "../" + REVISION, 3)),
        *({"size": each} for each in (0, -1, 1.5, True, "5", 1 << 51)),
        *({"gated": each} for each in (1, "yes")),
        *({"confidence": each} for each in ("A", "", 3)),
        {"hash": "a"},
    ],
)
def test_what_is_no_fact_of_a_file_is_refused_by_name(more: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(more))):
        HubFile("o/n", "x.gguf", **more)  # type: ignore[arg-type]
