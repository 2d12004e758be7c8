"""The converter on a pair of real, published size: SmolLM2-135M and a lightly changed copy.

The package carries a Q4_1 file. Widened to F16 its weights lie on a 4-bit grid, which 4-bit types
would reproduce for nothing, so the reference is first moved off that grid by noise well below
a step. The tuned copy is the reference plus a LoRA adapter of rank 4 on the attention's weights.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

import gguf
import numpy as np
import pytest
from helpers.convert_tools import ROOT, convert_quietly, exact_logits

from edge_eft.backend import quantize
from edge_eft.files.gguf_check import GGUFHeader, TensorInfo, read_header

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RANK = 4


class RealPair(NamedTuple):
    """F16 files, and the adapter that turns the reference into the tuned model."""

    reference: Path
    tuned: Path
    adapter: Path


def weights(header: GGUFHeader, data: np.ndarray) -> Iterator[tuple[TensorInfo, np.ndarray]]:
    """Yield (tensor, its float16 values, which may be written to) for each matrix."""
    end = max(tensor.offset + tensor.n_bytes for tensor in header.tensors)
    start = header.file_size - -(-end // 32) * 32
    for tensor in header.tensors:
        if len(tensor.shape) == 2:
            at = start + tensor.offset
            yield tensor, data[at : at + tensor.n_bytes].view(np.float16)


@pytest.fixture(scope="module")
def real_pair(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RealPair:
    folder = tmp_path_factory.mktemp("smollm2")
    pair = RealPair(*(folder / f"{name}.gguf" for name in ("reference", "tuned", "adapter")))
    quantize.quantize(smollm2_path, pair.reference, "F16", allow_requantize=True)
    header = read_header(pair.reference)
    rng = np.random.default_rng(0)
    data = np.memmap(pair.reference, np.uint8, "r+")
    for _, values in weights(header, data):
        noise = rng.standard_normal(values.size, np.float32)
        values[:] = values + 0.08 * values.astype(np.float32).std() * noise
    data.flush()
    shutil.copyfile(pair.reference, pair.tuned)
    writer = gguf.GGUFWriter(pair.adapter, header.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))  # so that the scale is 1
    data = np.memmap(pair.tuned, np.uint8, "r+")
    for tensor, values in weights(header, data):
        if "attn_" not in tensor.name:
            continue
        n_in, n_out = tensor.shape
        a = rng.standard_normal((RANK, n_in), np.float32)
        size = np.float32(0.15 * values.astype(np.float32).std() / RANK**0.5)
        b = rng.standard_normal((n_out, RANK), np.float32) * size
        values[:] = values + (b @ a).ravel()
        writer.add_tensor(f"{tensor.name}.lora_a", a)
        writer.add_tensor(f"{tensor.name}.lora_b", b)
    data.flush()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return pair


def test_joint_calibration_beats_each_side_by_itself(real_pair, tmp_path):
    """Uncalibrated is the naive choice: each side by itself, the default type of that size."""
    text = tmp_path / "calibration.txt"
    text.write_text("\n\n".join(topics.values())[:20_000])
    outcome = convert_quietly(
        real_pair.reference, real_pair.tuned, tmp_path, type="Q4_0", calibrate=text
    )
    both = outcome.report.types["Q4_0"]["calibration"]
    print(outcome.report.table())
    assert both["calibrated"]["kl_mean"] < both["uncalibrated"]["kl_mean"]
    assert both["calibrated"]["size_bytes"] < 1.02 * both["uncalibrated"]["size_bytes"]


_MEASURE = """
import sys
import numpy as np, psutil
from edge_eft.backend import Context, Model
model, second, adapter = sys.argv[1:]
before = psutil.Process().memory_info().rss
reference = Model(model, n_gpu_layers=0)
tuned = Model(second, n_gpu_layers=0) if second else reference
lora = tuned.load_adapter(adapter) if adapter else None
contexts = [Context(reference, n_ctx=512, n_outputs=8),
            Context(tuned, n_ctx=512, n_outputs=8, lora=lora)]
for context in contexts:
    context.advance({0: (np.arange(100, 400, dtype=np.int32), 1)})
print(psutil.Process().memory_info().rss - before)
"""


def memory(model: Path, second: Path | str = "", adapter: Path | str = "") -> int:
    """Return the bytes that a pair takes, loaded and used, in a process of its own."""
    arguments = [sys.executable, "-c", _MEASURE, *map(str, (model, second, adapter))]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_a_kept_adapter_saves_memory_and_gives_the_same_logits(real_pair, tmp_path, text):
    reference, tuned, adapter = real_pair
    merged = convert_quietly(reference, tuned, tmp_path, name="merged", text=text)
    kept = convert_quietly(reference, adapter, tmp_path, name="kept", text=text)
    reference = tmp_path / "merged-reference-Q8_0.gguf"
    full = tmp_path / "merged-tuned-Q8_0.gguf"
    adapter = tmp_path / "kept-tuned-lora.gguf"
    two = memory(reference, second=full)
    one = memory(reference, adapter=adapter)
    print(f"memory: kept {one / 2**20:.0f} MiB, two files {two / 2**20:.0f} MiB: {one / two:.3f}")
    print(f"merged:\n{merged.report.table()}\nkept:\n{kept.report.table()}")
    assert one <= 0.65 * two
    tokens = np.random.default_rng(0).integers(100, 40_000, 40).tolist()
    exact = exact_logits(real_pair.tuned, tokens)
    noise = np.abs(exact_logits(full, tokens) - exact).mean()
    kept_noise = np.abs(exact_logits(reference, tokens, adapter) - exact).mean()
    print(f"mean |logit error|: merged {noise:.4f}, kept {kept_noise:.4f}")
    assert kept_noise <= 1.5 * noise
