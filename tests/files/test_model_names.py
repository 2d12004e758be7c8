"""model_names: how a model is called by its owner, its packer and its file, and what that says."""

import pytest

from edge_eft.files.model_names import plain_name, says_before_tuning, words


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
