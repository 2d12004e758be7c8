"""What the converter says of directories and archives, from their headers alone."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edge_eft.convert import ConversionError, scripts
from edge_eft.convert.scripts import run_script, unpack_scripts
from edge_eft.convert.sources import check_adapter_fits, check_same_family, inspect
from edge_eft.errors import ModelFileError


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]], missing: int = 0) -> None:
    """Write a safetensors file of zeros, `missing` bytes short."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - missing))


SHAPES = {"model.embed_tokens.weight": (400, 64), "model.layers.0.q_proj.weight": (64, 64)}


def model_directory(path: Path, *, shapes=SHAPES, config=None, tokenizer=True, missing=0) -> Path:
    path.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], **(config or {})}
    (path / "config.json").write_text(json.dumps(config))
    safetensors(path / "model.safetensors", shapes, missing)
    if tokenizer:
        (path / "tokenizer.json").write_text("{}")
    return path


def adapter_directory(path: Path, n_in: int = 64, kind: str = "LORA") -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    prefix = "base_model.model.model.layers.0.q_proj"
    shapes = {f"{prefix}.lora_A.weight": (4, n_in), f"{prefix}.lora_B.weight": (64, 4)}
    safetensors(path / "adapter_model.safetensors", shapes)
    return path


def test_a_model_directory(tmp_path):
    source = inspect(model_directory(tmp_path / "m"), "reference")
    assert source.kind == "hf"
    assert source.architecture == "LlamaForCausalLM"
    assert source.n_parameters == 464 * 64
    assert len(source.sha256) == 64


def test_no_model_directory(tmp_path):
    with pytest.raises(ConversionError, match="not a model directory"):
        inspect(tmp_path, "tuned")
    with pytest.raises(ConversionError, match="no such file"):
        inspect(tmp_path / "nowhere", "tuned")


def test_a_missing_tokenizer(tmp_path):
    with pytest.raises(ConversionError, match="has no tokenizer"):
        inspect(model_directory(tmp_path / "m", tokenizer=False), "tuned")


def test_weights_that_are_missing_pickled_or_short(tmp_path):
    directory = model_directory(tmp_path / "m", missing=10)
    with pytest.raises(ModelFileError, match="truncated"):
        inspect(directory, "tuned")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ConversionError, match="safe_serialization"):
        inspect(directory, "tuned")


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"nono", b"12345678{"])
def test_a_damaged_safetensors_header(tmp_path, header):
    directory = model_directory(tmp_path / "m")
    (directory / "model.safetensors").write_bytes(header)
    with pytest.raises(ModelFileError, match="safetensors"):
        inspect(directory, "tuned")


def test_a_shard_that_the_index_names_is_missing(tmp_path):
    directory = model_directory(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match=r"lacks model-2\.safetensors"):
        inspect(directory, "tuned")


def test_code_in_a_directory_is_not_run_unasked(tmp_path):
    """llama.cpp's scripts pass trust_remote_code=True; a stranger's directory must not use it."""
    directory = model_directory(tmp_path / "m", config={"auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(ConversionError, match="--trust-remote-code"):
        inspect(directory, "tuned")
    assert inspect(directory, "tuned", trust_remote_code=True).kind == "hf"


def test_families_and_shapes(tmp_path):
    reference = inspect(model_directory(tmp_path / "r"), "reference")
    qwen = {"architectures": ["Qwen2ForCausalLM"]}
    other = inspect(model_directory(tmp_path / "q", config=qwen), "tuned")
    with pytest.raises(ConversionError, match=r"Qwen2ForCausalLM and reference .*Llama"):
        check_same_family(reference, other)
    wide = {**SHAPES, "model.layers.0.q_proj.weight": (96, 64)}
    with pytest.raises(ConversionError, match="96 × 64"):
        check_same_family(reference, inspect(model_directory(tmp_path / "w", shapes=wide), "tuned"))
    padded = {**SHAPES, "model.embed_tokens.weight": (402, 64), "lm_head.weight": (402, 64)}
    tail = inspect(model_directory(tmp_path / "p", shapes=padded), "tuned")
    check_same_family(reference, tail)  # added tokens are vocabulary.py's business


def test_adapters(tmp_path):
    reference = inspect(model_directory(tmp_path / "r"), "reference")
    fitting = inspect(adapter_directory(tmp_path / "a"), "tuned")
    assert fitting.is_adapter
    check_adapter_fits(fitting, reference)
    other = inspect(adapter_directory(tmp_path / "b", n_in=128), "tuned")
    with pytest.raises(ConversionError, match="another model"):
        check_adapter_fits(other, reference)
    with pytest.raises(ConversionError, match="IA3"):
        inspect(adapter_directory(tmp_path / "c", kind="IA3"), "tuned")


def test_a_gguf_adapter_for_another_architecture(tmp_path):
    model = inspect(tiny_models.write_random(tmp_path / "m.gguf", seed=0), "reference")
    adapter = inspect(tiny_models.write_adapter(tmp_path / "a.gguf", n_layer=3), "tuned")
    with pytest.raises(ConversionError, match=r"blk\.2"):
        check_adapter_fits(adapter, model)


def archive(path: Path, names: list[str], *, link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(f"sdist/{name}")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"pass"))
        if link:
            info = tarfile.TarInfo("sdist/vendor/llama.cpp/conversion/link.py")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return path


def test_only_the_scripts_are_unpacked(tmp_path):
    prefix = "vendor/llama.cpp/"
    names = [
        *(f"{prefix}convert_hf_to_gguf.py", f"{prefix}conversion/base.py"),
        *(f"{prefix}gguf-py/gguf/x.py", f"{prefix}gguf-py/gguf/../../../../../evil.py"),
        *(f"{prefix}conversion/../evil.py", f"{prefix}src/llama.cpp", "setup.py", "/etc/evil.py"),
    ]
    target = tmp_path / "scripts"
    unpack_scripts(archive(tmp_path / "a.tar.gz", names, link="/etc/passwd"), target)
    found = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert found == ["conversion/base.py", "convert_hf_to_gguf.py", "gguf-py/gguf/x.py"]
    assert not list(tmp_path.rglob("evil.py"))


def test_an_archive_without_scripts_or_damaged(tmp_path):
    with pytest.raises(ConversionError, match="does not hold"):
        unpack_scripts(archive(tmp_path / "a.tar.gz", ["setup.py"]), tmp_path / "x")
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ConversionError, match="cannot unpack"):
        unpack_scripts(tmp_path / "b.tar.gz", tmp_path / "y")


def test_another_hash_than_the_index_states_is_refused(tmp_path, monkeypatch):
    def pip(*arguments: str) -> None:
        if arguments[0] == "install":
            info = {"archive_info": {"hashes": {"sha256": "0" * 64}}}
            report = arguments[arguments.index("--report") + 1]
            Path(report).write_text(json.dumps({"install": [{"download_info": info}]}))
        else:
            archive(tmp_path / "llama.tar.gz", ["vendor/llama.cpp/convert_hf_to_gguf.py"])

    monkeypatch.setattr(scripts, "_pip", pip)
    with pytest.raises(ConversionError, match="index states"):
        scripts._download("0.3.36", tmp_path)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(scripts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConversionError, match=r"torch.*\.\[convert\]"):
        scripts.require_modules()


def test_a_checkout_without_scripts(tmp_path):
    with pytest.raises(ConversionError, match=r"not a llama\.cpp checkout"):
        scripts.find_scripts(tmp_path)


def test_a_failing_script_is_one_line_without_control_characters(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.stderr.write('talk\\n'); sys.exit('no \\x1b[31mgood')")
    with pytest.raises(ConversionError, match=r"^fails\.py failed: no  \[31mgood$"):
        run_script(script, [])


def test_a_script_gets_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "x.py")
    script = tmp_path / "env.py"
    script.write_text(
        "import os, sys\nbad = {'HF_TOKEN', 'PYTHONSTARTUP'} & set(os.environ)\n"
        "sys.exit(bool(bad) or os.environ['HF_HUB_OFFLINE'] != '1')"
    )
    run_script(script, [])
