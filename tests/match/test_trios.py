"""Trios among forty files of six families, as three other programs keep them."""

import os
import shutil
import time
from dataclasses import replace

import pytest
from helpers.gguf_builder import STR, U32
from helpers.model_tree import (
    CHAT,
    GEMMA3,
    LLAMA3,
    PHI4,
    QWEN3,
    QWEN25,
    QWEN25_LARGE,
    SMOLLM,
    SMOLLM2,
    Shape,
    Stores,
    Tokens,
    Written,
    adapter,
)

from edge_eft.files.gguf_check import read_header
from edge_eft.match.candidates import read_candidates
from edge_eft.match.stores import search
from edge_eft.match.trios import propose

Q3_06 = Shape("qwen3", 28, 1024, 3072, QWEN3, 31)
Q3_17 = Shape("qwen3", 28, 2048, 6144, QWEN3, 32)
Q3_8 = Shape("qwen3", 36, 4096, 12288, QWEN3, 33)
Q3_MOE = Shape("qwen3moe", 48, 4096, 16384, QWEN3, 34, experts=128)
Q25_05 = Shape("qwen2", 24, 896, 4864, QWEN25, 21)
Q25_7 = Shape("qwen2", 28, 3584, 18944, QWEN25_LARGE, 22)
CODER_05 = replace(Q25_05, weights=23)
R1_15 = Shape("qwen2", 28, 1536, 8960, QWEN25, 24)
L32_1 = Shape("llama", 16, 2048, 8192, LLAMA3, 11)
L31_8 = Shape("llama", 32, 4096, 14336, LLAMA3, 12)
G_270 = Shape("gemma3", 18, 640, 2048, GEMMA3, 41)
G_1 = Shape("gemma3", 26, 1280, 6912, GEMMA3, 42)
S_360 = Shape("llama", 32, 960, 2560, SMOLLM2, 51)
S_17 = Shape("llama", 24, 2048, 8192, SMOLLM2, 52)
OLD_S_360 = replace(S_360, tokens=SMOLLM, weights=53)
PHI = Shape("phi3", 32, 3072, 8192, PHI4, 61)

CHATTING = {"tuned": 0.02, "template": CHAT}


def build(home):
    """Write the tree; returns the stores and the folder of the user's own."""
    stores, own = Stores(home), home / "models"
    hub, studio, ollama = stores.on_hub, stores.in_lm_studio, stores.in_ollama
    # 1. Qwen3: two pairs, and a base and a mixture for both; its base models have templates.
    q3 = Written(Q3_06, template=CHAT)
    hub("mradermacher/Qwen3-0.6B-Base-GGUF", "Qwen3-0.6B-Base.Q8_0.gguf", q3)
    q4 = replace(q3, quantisation="Q4_K_M")
    hub("bartowski/Qwen_Qwen3-0.6B-Base-GGUF", "Qwen_Qwen3-0.6B-Base-Q4_K_M.gguf", q4)
    small = Written(Q3_06, **CHATTING)
    studio("lmstudio-community/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", small)
    q4 = replace(small, quantisation="Q4_K_M")
    studio("lmstudio-community/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q4_K_M.gguf", q4)
    hub("mradermacher/Qwen3-1.7B-Base-GGUF", "Qwen3-1.7B-Base.Q8_0.gguf", Written(Q3_17))
    ollama("qwen3:1.7b", Written(Q3_17, name=b"Qwen3 1.7B", **CHATTING))
    large = Written(Q3_8, "Q4_K_M")
    hub("mradermacher/Qwen3-8B-Base-GGUF", "Qwen3-8B-Base.Q4_K_M.gguf", large)
    large = replace(large, quantisation="Q8_0")
    hub("mradermacher/Qwen3-8B-Base-GGUF", "Qwen3-8B-Base.Q8_0.gguf", large)
    chat = Written(Q3_8, "Q4_K_M", **CHATTING)
    studio("lmstudio-community/Qwen3-8B-GGUF", "Qwen3-8B-Q4_K_M.gguf", chat)
    hub("x/Qwen3-30B-A3B-Base-GGUF", "Qwen3-30B-A3B-Base.i1-Q4_0.gguf", Written(Q3_MOE, "Q4_0"))
    embeds = replace(small, tuned=0.1, more={b"qwen3.pooling_type": (U32, 3)})
    hub("Qwen/Qwen3-Embedding-0.6B-GGUF", "Qwen3-Embedding-0.6B-Q8_0.gguf", embeds)
    ranks = replace(small, tuned=0.1)
    studio("x/Qwen3-Reranker-0.6B-GGUF", "Qwen3-Reranker-0.6B-Q8_0.gguf", ranks)
    # A tune of one's own on the instruct model: its base is the large instruct model.
    mine = replace(small, tuned=0.03, made_from=b"Qwen3 0.6B", name=b"Kundendienst")
    mine.write(own / "kundendienst-q8_0.gguf")
    # 2. Qwen2.5: the large one has a longer tail of padding. Coder has the shape, and is another.
    hub("QuantFactory/Qwen2.5-7B-GGUF", "Qwen2.5-7B.Q4_K_M.gguf", Written(Q25_7, "Q4_K_M"))
    ollama("qwen2.5:0.5b-base", Written(Q25_05, template=CHAT))
    for kind in ("Q8_0", "Q4_0"):
        file = f"Qwen2.5-0.5B-Instruct-{kind}.gguf"
        hub("bartowski/Qwen2.5-0.5B-Instruct-GGUF", file, Written(Q25_05, kind, **CHATTING))
    file = "Qwen2.5-Coder-0.5B-Instruct-Q8_0.gguf"
    studio("x/Qwen2.5-Coder-0.5B-Instruct-GGUF", file, Written(CODER_05, **CHATTING))
    file = "DeepSeek-R1-Distill-Qwen-1.5B-Q8_0.gguf"
    hub("unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF", file, Written(R1_15, **CHATTING))
    # 3. Llama 3: a split base; Ollama's name does not say that its model is tuned.
    split = Written(L31_8, "Q4_K_M")
    hub("QuantFactory/Meta-Llama-3.1-8B-GGUF", "Meta-Llama-3.1-8B.gguf", split, n_parts=3)
    hub("QuantFactory/Llama-3.2-1B-GGUF", "Llama-3.2-1B.Q8_0.gguf", Written(L32_1))
    blob = ollama("llama3.2:1b", Written(L32_1, name=b"Llama 3.2 1B Instruct", **CHATTING))
    file = "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"
    studio("x/Meta-Llama-3.1-8B-Instruct-GGUF", file, Written(L31_8, "Q4_K_M", **CHATTING))
    file = "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    studio("x/Llama-3.2-1B-Instruct-GGUF", file, Written(L32_1, "Q4_K_M", **CHATTING))
    lora = adapter(home / "lora", L32_1)
    ollama("angebote:latest", blob, lora=lora)
    # 4. Gemma 3, and its vision projector.
    hub("ggml-org/gemma-3-270m-GGUF", "gemma-3-270m-Q8_0.gguf", Written(G_270))
    hub("unsloth/gemma-3-270m-it-GGUF", "gemma-3-270m-it-Q8_0.gguf", Written(G_270, **CHATTING))
    hub("x/gemma-3-1b-pt-GGUF", "gemma-3-1b-pt.Q4_K_M.gguf", Written(G_1, "Q4_K_M"))
    sees = Written(G_270, more={b"general.architecture": (STR, b"clip")})
    hub("ggml-org/gemma-3-4b-it-GGUF", "mmproj-model-f16.gguf", sees)
    # 5. SmolLM2, and its forerunner of the same shape and size of vocabulary.
    Written(S_17, "Q4_0").write(own / "smol" / "SmolLM2-1.7B.Q4_0.gguf")
    Written(S_360).write(own / "smol" / "SmolLM2-360M.Q8_0.gguf")
    file = "smollm2-360m-instruct-q8_0.gguf"
    Written(S_360, **CHATTING).write(own / "smol" / file)
    Written(OLD_S_360, **CHATTING).write(own / "smol" / "SmolLM-360M-Instruct-Q8_0.gguf")
    # 6. Phi-4 mini: the instruct model alone, twice.
    for kind in ("Q8_0", "Q4_K_M", "Q4_0"):
        file = f"Phi-4-mini-instruct-{kind}.gguf"
        studio("x/Phi-4-mini-instruct-GGUF", file, Written(PHI, kind, **CHATTING))
    _rubbish(own)
    return stores, own


def _rubbish(own):
    """What lies about where models are."""
    cut = (own / "smol" / "SmolLM2-360M.Q8_0.gguf").read_bytes()[:100_000]
    (own / "download.gguf").write_bytes(cut)
    (own / "lfs.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    Written(S_360, "Q4_0").write(own / "parts" / "x.gguf", n_parts=2)
    (own / "parts" / "x-00002-of-00002.gguf").unlink()
    (own / "gone.gguf").symlink_to(own / "nowhere.gguf")
    (own / "again").symlink_to(own, target_is_directory=True)
    (own / "outside.gguf").symlink_to("/etc/passwd")
    (own / "notes.txt").write_text("not a model")
    os.mkfifo(own / "pipe.gguf")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    yield build(home)
    shutil.rmtree(home)  # 200 MB of headers


def matched(directories, stores, available=1 << 40):
    found = search(directories, environment=stores.environment())
    candidates, notes = read_candidates(found.files)
    trios, doubtful = propose(candidates, lambda trio: trio.base.header.n_bytes, available)
    return found, candidates, trios, [*found.notes, *notes, *doubtful]


@pytest.fixture(scope="module")
def of_tree(tree):
    stores, own = tree
    return matched([own], stores)


def titles(trios):
    return {(trio.base.title, trio.tuned.title, trio.reference.title) for trio in trios}


EXPECTED = {
    *(
        (base, tuned, reference)
        for base in ("Qwen3-8B-Base.Q8_0", "Qwen3-30B-A3B-Base.i1-Q4_0")
        for tuned, reference in (
            ("Qwen3-0.6B-Q8_0", "Qwen3-0.6B-Base.Q8_0"),
            ("qwen3:1.7b", "Qwen3-1.7B-Base.Q8_0"),
        )
    ),
    ("Qwen3-30B-A3B-Base.i1-Q4_0", "Qwen3-8B-Q4_K_M", "Qwen3-8B-Base.Q4_K_M"),
    ("Qwen3-1.7B-Base.Q8_0", "Qwen3-0.6B-Q8_0", "Qwen3-0.6B-Base.Q8_0"),
    ("qwen3:1.7b", "kundendienst-q8_0", "Qwen3-0.6B-Q8_0"),
    ("Qwen3-8B-Q4_K_M", "kundendienst-q8_0", "Qwen3-0.6B-Q8_0"),
    ("Qwen2.5-7B.Q4_K_M", "Qwen2.5-0.5B-Instruct-Q8_0", "qwen2.5:0.5b-base"),
    ("Meta-Llama-3.1-8B", "llama3.2:1b", "Llama-3.2-1B.Q8_0"),
    ("Meta-Llama-3.1-8B-Instruct-Q4_K_M", "angebote:latest", "llama3.2:1b"),
    ("gemma-3-1b-pt.Q4_K_M", "gemma-3-270m-it-Q8_0", "gemma-3-270m-Q8_0"),
    ("SmolLM2-1.7B.Q4_0", "smollm2-360m-instruct-q8_0", "SmolLM2-360M.Q8_0"),
}


def test_of_forty_files_of_six_families_the_right_trios_are_proposed_and_no_wrong_one(of_tree):
    found, _, trios, _ = of_tree
    assert len(found.files) >= 39  # and parts, broken links, what is no file
    assert titles(trios) == EXPECTED
    assert len(trios) == len(EXPECTED), "several quantisations do not multiply the list"


def test_forty_files_are_matched_in_under_two_seconds(tree):
    stores, own = tree
    times = []
    while len(times) < 3 and min(times, default=2) >= 2:
        start = time.process_time()  # what it takes on a machine that does nothing else
        matched([own], stores)
        times.append(time.process_time() - start)
    assert min(times) < 2


def test_padded_tails_and_renamed_reserved_tokens_are_one_family_and_others_are_not(of_tree):
    _, candidates, _, _ = of_tree
    families = {}
    for each in candidates:
        if not each.header.is_adapter:
            families.setdefault(each.family, set()).add(each.header.n_vocab)
    assert sorted(map(sorted, families.values())) == [
        [20_064],
        [49_152],
        [49_152],
        [128_256],
        [151_936, 152_064],
        [262_144],
    ]


def test_what_is_no_writer_and_what_is_damaged_is_left_out_with_the_reason(of_tree):
    *_, notes = of_tree
    for file, why in (
        ("mmproj-model-f16.gguf", "is a vision projector"),
        ("Qwen3-Embedding-0.6B-Q8_0.gguf", "for embeddings or ranking"),
        ("Qwen3-Reranker-0.6B-Q8_0.gguf", "for embeddings or ranking"),
        ("download.gguf", "truncated"),
        ("lfs.gguf", "Git LFS pointer"),
        ("x-00001-of-00002.gguf", "1 are missing"),
        ("gone.gguf", "No such file"),
        ("outside.gguf", "a link out of the folders"),
        ("pipe.gguf", "not a regular file"),
    ):
        assert len([note for note in notes if f"{file}: " in note and why in note]) == 1, file


WORDS = Tokens(9, 400, 390)
TINY = Shape("llama", 2, 256, 512, WORDS, 1)
BIG = Shape("llama", 8, 512, 1024, WORDS, 2)


@pytest.fixture
def own(tmp_path):
    """A folder with a base model of a family in it, and no home."""
    Written(BIG, "Q4_0").write(tmp_path / "own" / "fam-8B-base-Q4_0.gguf")
    return tmp_path / "own"


def matched_in(own, available=1 << 40):
    *_, trios, notes = matched([own], Stores(own.parent / "home"), available)
    return trios, notes


def pair_in(own, **of_tuned):
    Written(TINY).write(own / "fam-1B-base-Q8_0.gguf")
    Written(TINY, **{**CHATTING, **of_tuned}).write(own / "fam-1B-it-Q8_0.gguf")


def test_a_model_in_two_quantisations_is_no_pair(own):
    for kind in ("Q8_0", "Q4_0", "F16"):
        Written(TINY, kind, **CHATTING).write(own / f"fam-1B-it-{kind}.gguf")
        Written(TINY, kind, template=CHAT).write(own / f"other-1B-base-{kind}.gguf")
    for each in own.glob("other*"):
        each.unlink()
    assert matched_in(own) == ([], [])


def test_a_copy_under_another_name_is_no_pair(own):
    pair_in(own, tuned=0.0)
    trios, (note,) = matched_in(own)
    assert trios == []
    assert note.endswith("hold the same weights")


def test_strangers_whose_names_claim_it_are_no_pair(own):
    Written(TINY).write(own / "fam-1B-base.gguf")
    Written(replace(TINY, weights=7), **CHATTING).write(own / "fam-1B-it.gguf")
    trios, (note,) = matched_in(own)
    assert trios == []
    assert "were not tuned from one another, by their weights" in note


def test_a_tune_of_any_name_is_found_by_its_weights(own):
    Written(TINY).write(own / "fam-1B-base.gguf")
    Written(TINY, **CHATTING).write(own / "kundendienst.gguf")
    ((trio),), notes = matched_in(own)
    assert (trio.tuned.title, trio.why) == ("kundendienst", "by their weights")
    assert not notes


def test_a_pair_is_taken_in_one_quantisation_and_q8_0_before_others(own):
    pair_in(own)
    for kind in ("F16", "Q4_0"):
        Written(TINY, kind).write(own / f"fam-1B-base-{kind}.gguf")
        Written(TINY, kind, **CHATTING).write(own / f"fam-1B-it-{kind}.gguf")
    (trio,), _ = matched_in(own)
    assert (trio.tuned.title, trio.reference.title) == ("fam-1B-it-Q8_0", "fam-1B-base-Q8_0")
    assert len(trio.also) == 4
    (own / "fam-1B-base-Q8_0.gguf").unlink()
    (trio,), _ = matched_in(own)
    assert (trio.tuned.title, trio.reference.title) == ("fam-1B-it-F16", "fam-1B-base-F16")


def test_the_base_that_fits_is_taken_then_the_one_with_exact_drafts_then_the_larger(own):
    pair_in(own)
    for kind in ("Q4_K_M", "F16", "Q8_0"):
        Written(BIG, kind).write(own / f"fam-8B-base-{kind}.gguf")

    def chosen(available):
        (trio,), _ = matched_in(own, available)
        return trio.base.header.quantisation, trio.fits, trio.is_exact

    assert chosen(1 << 40) == ("Q8_0", True, True)
    needed = read_header(own / "fam-8B-base-Q8_0.gguf").n_bytes
    assert chosen(needed - 1) == ("Q4_0", True, True)
    assert chosen(1000)[1:] == (False, True)


def test_drafts_with_a_k_quant_are_exact_up_to_rounding(own):
    pair_in(own)
    assert matched_in(own)[0][0].is_exact
    (own / "fam-8B-base-Q4_0.gguf").unlink()
    Written(BIG, "Q4_K_M").write(own / "fam-8B-base-Q4_K_M.gguf")
    assert not matched_in(own)[0][0].is_exact


def test_a_base_no_larger_than_the_pair_is_none(own):
    pair_in(own)
    (own / "fam-8B-base-Q4_0.gguf").unlink()
    Written(replace(TINY, n_layer=3, weights=5)).write(own / "fam-1.1B-base.gguf")
    assert matched_in(own)[0] == []


def test_of_two_versions_a_base_is_led_by_its_own(own):
    (own / "fam-8B-base-Q4_0.gguf").unlink()
    for i, version in enumerate(("v1", "v2")):
        small = replace(TINY, weights=10 + i)
        Written(small).write(own / f"fam-1B-{version}-base.gguf")
        Written(small, **CHATTING).write(own / f"fam-1B-{version}-it.gguf")
        Written(replace(BIG, weights=20 + i)).write(own / f"fam-8B-{version}-base.gguf")
    trios, _ = matched_in(own)
    assert [(trio.base.title, trio.tuned.title) for trio in trios] == [
        (f"fam-8B-{version}-base", f"fam-1B-{version}-it") for version in ("v1", "v2")
    ]


def test_a_base_of_another_series_is_taken_only_if_it_has_the_architecture(own):
    pair_in(own)
    Written(replace(BIG, weights=6)).write(own / "other-9B-base.gguf")
    Written(replace(BIG, weights=6, architecture="qwen2")).write(own / "third-9B-base.gguf")
    trios, _ = matched_in(own)
    assert [(trio.base.title, trio.one_series) for trio in trios] == [
        ("fam-8B-base-Q4_0", True),
        ("other-9B-base", False),
    ]


@pytest.mark.parametrize("told", [b"", b"Fam 1B It", b"fam 1b base"])
def test_an_adapter_goes_on_the_model_that_its_file_names(own, told):
    pair_in(own)
    Written(BIG, "Q8_0", **CHATTING).write(own / "fam-8B-it-Q8_0.gguf")
    adapter(own / "lora.gguf", TINY, told)
    trios, notes = matched_in(own)
    adapted = [trio for trio in trios if trio.tuned.header.is_adapter]
    if not told:
        assert adapted == []
        assert "an adapter that fits fam-1B-base-Q8_0, fam-1B-it-Q8_0; its file does" in notes[0]
        return
    (trio,) = adapted
    kind = told.split()[-1].decode().lower()
    assert trio.reference.title == f"fam-1B-{kind}-Q8_0"
    assert trio.base.title.startswith(f"fam-8B-{kind}")
    recipe = trio.recipe("mine")
    (delta,) = recipe.deltas.values()
    assert (delta.tuned.lora, delta.tuned.file) == (own / "lora.gguf", trio.reference.path)
    assert recipe.base.prompt == ("template" if kind == "it" else None)


def test_an_adapter_that_fits_one_model_alone_goes_on_that(own):
    pair_in(own)
    (own / "fam-1B-base-Q8_0.gguf").unlink()
    Written(BIG, "Q8_0", **CHATTING).write(own / "fam-8B-it-Q8_0.gguf")
    adapter(own / "lora.gguf", TINY)
    (trio,), _ = matched_in(own)
    assert trio.why == "as it fits no other model here"


def test_a_model_that_would_think_is_told_not_to(own):
    pair_in(own, template=CHAT + b"{% if enable_thinking %}<think>{% endif %}")
    (trio,), _ = matched_in(own)
    (delta,) = trio.recipe("mine").deltas.values()
    assert delta.tuned.template_kwargs == {"enable_thinking": False}
    assert not delta.reference.template_kwargs


def test_headers_that_lie_about_names_make_no_trio_of_other_vocabularies(own):
    pair_in(own)
    (own / "fam-8B-base-Q4_0.gguf").unlink()
    other = replace(BIG, tokens=Tokens(10, 400, 390))
    Written(other, "Q4_0").write(own / "fam-8B-base-Q4_0.gguf")
    assert matched_in(own)[0] == []


def test_a_makers_other_line_is_not_paired_though_its_weights_are_near(own):
    Written(replace(TINY, weights=4)).write(own / "Qwen2.5-0.5B-Q8_0.gguf")
    near = Written(replace(TINY, weights=4), **CHATTING)
    near.write(own / "Qwen2.5-Coder-0.5B-Instruct-Q8_0.gguf")
    Written(BIG).write(own / "Qwen2.5-7B-Q8_0.gguf")
    assert matched_in(own)[0] == []


def test_a_merge_without_a_template_is_no_base_for_another_series(own):
    pair_in(own)
    (own / "fam-8B-base-Q4_0.gguf").unlink()
    Written(replace(BIG, weights=6)).write(own / "mythical-13b.gguf")
    assert matched_in(own)[0] == []


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (b"v.patch_embd.weight", "vision or sound part in the same file"),
        (b"cls.output.weight", "is a classifier"),
    ],
)
def test_a_model_with_parts_that_are_no_text_models_is_left_out(own, tensor, why):
    class Seeing(Written):
        def tensors(self):
            return [*super().tensors(), (tensor, (256, 4), 0)]

    pair_in(own)
    Seeing(TINY, **CHATTING).write(own / "fam-1B-it-Q8_0.gguf")
    trios, notes = matched_in(own)
    assert trios == []
    assert len([note for note in notes if why in note]) == 1
