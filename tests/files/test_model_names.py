"""What names of models say."""

import pytest

from edge_eft.files.model_names import (
    model_name,
    plain_name,
    quantisation,
    says_before_tuning,
    words,
)


@pytest.mark.parametrize(
    ("name", "core", "tuned", "sizes", "marks"),
    [
        ("Qwen3-0.6B-Base.Q8_0", "qwen3", False, "0.6b", ""),
        ("Qwen_Qwen3-8B-Q4_K_M", "qwen3", None, "8b", ""),
        ("Qwen3-4B-Instruct-2507-UD-Q4_K_XL", "qwen3", True, "4b", "2507"),
        ("Qwen3-4B-Thinking-2507-Q8_0", "qwen3", True, "4b", "2507"),
        ("Qwen3-30B-A3B-Base.i1-IQ4_XS", "qwen3", False, "30b a3b", ""),
        ("Qwen2.5-Coder-0.5B-Instruct-Q4_0_4_4", "qwen2.5 coder", True, "0.5b", ""),
        ("qwen2.5:0.5b-base", "qwen2.5", False, "0.5b", ""),
        ("Meta-Llama-3.1-8B.Q4_K_M", "llama3.1", None, "8b", ""),
        ("Llama-3.2-1B-Instruct-Q8_0", "llama3.2", True, "1b", ""),
        ("llama3.2:1b", "llama3.2", None, "1b", ""),
        ("tinyllama-1.1b-chat-v1.0.Q8_0", "tinyllama", True, "1.1b", "v1.0"),
        ("tinyllama-1.1b-intermediate-step-1431k-3t.Q8_0", "tinyllama", None, "1.1b 3t", ""),
        ("OLMo-2-0425-1B-Instruct-Q8_0", "olmo2", True, "1b", "0425"),
        ("granite-4.0-350m-base-Q8_0", "granite4.0", False, "350m", ""),
        ("google_gemma-3-270m-it-bf16", "gemma3", True, "270m", ""),
        ("gemma-3-1b-pt.Q4_K_M", "gemma3", False, "1b", ""),
        ("ggml-tiiuae-falcon-7b-instruct-Q4_K_M", "falcon", True, "7b", ""),
        ("Mixtral-8x7B-v0.1.Q4_K_M", "mixtral", None, "8x7b", "v0.1"),
        ("DeepSeek-R1-Distill-Qwen-1.5B", "deepseek r1 distill qwen", True, "1.5b", ""),
        ("ggml-model-q4_0", "", None, "", ""),
        ("\x1b]0;x\x07", "0 x", None, "", ""),
        ("", "", None, "", ""),
    ],
)
def test_a_name_is_taken_apart(name, core, tuned, sizes, marks):
    found = model_name(name)
    assert (found.core, found.tuned) == (set(core.split()), tuned)
    assert (found.sizes, found.marks) == (set(sizes.split()), set(marks.split()))
    assert found.writes


@pytest.mark.parametrize(
    ("name", "tuned"),
    [
        ("Qwen3-8B", True),
        ("granite-4.0-350m", True),
        ("Qwen2.5-Coder-7B", False),
        ("SmolLM2-135M", False),
        ("gemma-3-270m", False),
        ("Qwen3-8B-kundendienst", None),
        ("unheard-of-7B", None),
    ],
)
def test_what_a_plain_name_means_is_the_habit_of_its_family(name, tuned):
    assert model_name(name).plainly_tuned is tuned


@pytest.mark.parametrize(
    "name", ["Qwen3-Embedding-0.6B", "bge-reranker-v2-m3", "mmproj-model-f16", "x-reward-7b"]
)
def test_names_of_models_that_write_no_text_are_known(name):
    assert not model_name(name).writes


def test_a_series_is_a_family_without_its_minor_versions():
    assert model_name("Llama-3.1-8B").series == model_name("Llama-3.2-1B").series
    assert model_name("Llama-3.1-8B").series != model_name("Llama-2-7B").series


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("unsloth/Qwen3-0.6B-GGUF", "qwen3-0.6b"),
        ("Qwen3-0.6B-Q8_0.gguf", "qwen3-0.6b"),
        ("Qwen3-4B-Base.Q4_K_M.gguf", "qwen3-4b-base"),
        ("unsloth/qwen3-0.6b-unsloth-bnb-4bit", "qwen3-0.6b"),
        ("/home/me/models/Qwen3-0.6B/", "qwen3-0.6b"),
        (r"C:\models\Qwen3-0.6B", "qwen3-0.6b"),
        ("Qwen3 0.6B", "qwen3-0.6b"),
        ("SmolLM2-135M-Instruct-IQ4_XS", "smollm2-135m-instruct"),
        ("model-F16.gguf", "model"),
        ("Q8_0", "q8_0"),
        ("", ""),
    ],
)
def test_a_name_without_its_packing(name, plain):
    assert plain_name(name) == plain


def test_words_are_told_apart_by_anything_but_letters_digits_and_dots():
    assert words("Llama-3.2_1B Instruct") == {"llama", "3.2", "1b", "instruct"}
    assert words("--") == set()


@pytest.mark.parametrize(
    ("name", "tuned", "says"),
    [
        ("meta-llama/Llama-3.2-1B", ["Llama-3.2-1B-Instruct-Q8_0.gguf"], True),
        ("Qwen/Qwen3-0.6B-Base", ["unsloth/Qwen3-0.6B-GGUF"], True),
        ("google/gemma-3-270m", ["gemma-3-270m-it-Q8_0.gguf"], True),
        ("Qwen/Qwen3-0.6B", ["unsloth/Qwen3-0.6B-GGUF"], False),
        ("meta-llama/Llama-3.2-1B-Instruct", ["Llama-3.2-1B-Instruct"], False),
        ("./my-own", ["Llama-3.2-1B-Instruct"], False),
        ("org/chat-base", ["Llama-3.2-1B-Instruct"], False),
        ("", ["Llama-3.2-1B-Instruct"], False),
    ],
)
def test_a_name_that_is_of_the_model_before_tuning(name, tuned, says):
    assert says_before_tuning(name, tuned) is says


@pytest.mark.parametrize(
    ("name", "kind"),
    {
        "Qwen3-8B-Base.Q4_K_M.gguf": "Q4_K_M",
        "Model.i1-IQ3_XXS.gguf": "IQ3_XXS",
        "smollm2-360m-instruct-q8_0.gguf": "Q8_0",
        "Qwen3-4B-UD-Q4_K_XL.gguf": "UD-Q4_K_XL",
        "gemma-BF16-00001-of-00002.gguf": "BF16",
        "Q6_K/model-00001-of-00003.gguf": "Q6_K",
        "gpt-oss-MXFP4_MOE.gguf": "MXFP4_MOE",
        "model.gguf": "",
        "qwen-f16-tuned.gguf": "F16",
    }.items(),
)
def test_a_quantisation_is_read_from_a_name(name, kind):
    assert quantisation(name) == kind
