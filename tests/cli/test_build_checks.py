"""build_checks: what is said of an installation, also of one that dies, hangs or does not load."""

import os
import platform
import sys
import time
from importlib import metadata

import pytest

from edge_eft import llama_build
from edge_eft.cli import build_checks
from edge_eft.cli.build_checks import Trial, examine, gpu_vendors, try_out
from edge_eft.cli.finding import NOTE, OK, WARNING

PORTABLE = "CPU : AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | REPACK = 1 | "
STEPS = {
    "build": {"system_info": PORTABLE, "libraries": ["cpu"]},
    "threads": [2, "because"],
    "devices": [],
    "gpu": False,
    "CPU": True,
}
AVX2 = frozenset({"AVX", "AVX2", "F16C", "FMA", "BMI2"})


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(build_checks, "gpu_vendors", list)
    monkeypatch.setattr(llama_build, "supported", lambda: AVX2)


@pytest.fixture
def startup(tmp_path, monkeypatch):
    """Make every child run this code before its own."""

    def use(code):
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return use


def found(trial, name):
    return [finding for finding in examine(trial) if finding.name == name]


def one(trial, name):
    (finding,) = found(trial, name)
    return finding


def test_this_installation_works(tiny):
    trial = try_out(tiny.base)
    assert trial.end == ""
    assert one(trial, "decode").verdict == OK
    assert one(trial, "llama.cpp").verdict == OK
    assert all(finding.verdict == OK for finding in found(trial, "GPU"))


def test_that_there_is_no_gpu_is_said():
    assert one(Trial(STEPS), "GPU").value == "none is seen here; the CPU does it all"


def test_the_distribution_and_what_edge_eft_runs_from_are_said(monkeypatch, tmp_path):
    """Whoever reads a bug report asks for them first."""
    named = {"PRETTY_NAME": "Plan 10 (Bookworm)"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: named)
    monkeypatch.setattr(build_checks.sys, "platform", "linux")
    assert one(Trial(STEPS), "machine").value.startswith("Plan 10 (Bookworm), ")
    version = f"edge-eft {metadata.version('edge-eft')}"
    assert one(Trial(STEPS), "versions").value.startswith(f"{version} (a checkout), llama-cpp")
    monkeypatch.setattr(build_checks, "_PACKAGE_ROOT", str(tmp_path))
    assert one(Trial(STEPS), "versions").data["from"] == "installed as a wheel"

    def unsaid():
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", unsaid)
    assert one(Trial(STEPS), "machine").value.startswith(platform.system())


def test_an_illegal_instruction_in_a_decode_is_the_childs_death(tiny, startup):
    """The AMX trap: the build loads, and dies of SIGILL in its first matrix product."""
    startup("import os, llama_cpp\nllama_cpp.llama_decode = lambda *_: os.kill(os.getpid(), 4)\n")
    trial = try_out(tiny.base)
    assert trial.fatal == "SIGILL"
    decode = one(trial, "decode")
    assert decode.verdict == WARNING
    assert decode.value == "decoding on the CPU: it died of SIGILL"
    assert "instructions that this processor does not have" in decode.advice
    assert "CMAKE_ARGS=" in decode.command
    assert "--no-binary llama-cpp-python" in decode.command


@pytest.mark.parametrize(
    "code",
    ["print('hello')", "print('[1]\\nnull\\n{}\\n{\"step\": [], \"result\": 1}\\n' + '[' * 9999)"],
)
def test_what_a_package_prints_breaks_nothing(startup, code):
    startup(code)
    assert try_out(None).end == ""


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import os\nos._exit(0)\n", "it gave no reason"),
        ("import os\nos.write(2, b'x' * 9999)\nos._exit(0)\n", "x" * 300),
        ("import os\nos.kill(os.getpid(), 33)\n", "it died of signal 33"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="numbers of signals differ")
def test_a_child_that_ends_too_soon_is_told(startup, code, end):
    """Status 0 was taken for a trial that went well, as far as it went."""
    startup(code)
    assert one(try_out(None), "llama.cpp").value == f"cannot be loaded: {end}"


def test_a_child_that_hangs_is_ended(startup):
    startup("import time\ntime.sleep(50)\n")
    finding = one(try_out(None, seconds=1), "llama.cpp")
    assert finding.value == "cannot be loaded: it hung, and was ended after 1 s"


def test_what_a_child_said_before_it_hung_is_kept():
    """Nor is it waited for: one that is stuck in a driver does not die, and holds the pipe."""
    command = ["sh", "-c", "echo '{}'; sleep 4 & wait"]
    begun = time.monotonic()
    assert build_checks._run(command, os.environ, 1) == (None, b"{}\n", b"")
    assert time.monotonic() - begun < 3


def test_a_child_that_hangs_in_native_code_ends_itself(tiny, startup):
    """Its parent may be gone; the alarm comes from the system."""
    startup("import os, llama_cpp\nllama_cpp.llama_decode = lambda *_: os.kill(os.getpid(), 14)\n")
    finding = one(try_out(tiny.base), "decode")
    assert finding.value == "decoding on the CPU: it hung, and was ended after 90 s"


def test_where_no_process_can_be_started_it_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    finding = one(try_out(None), "llama.cpp")
    assert finding.value == "cannot be loaded: No such file or directory"


def test_a_library_that_cannot_be_loaded_is_told_without_its_path(startup, tmp_path):
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(
        "raise OSError('/home/anna/lib/libllama.so: cannot open shared object file')"
    )
    startup("")
    finding = one(try_out(None), "llama.cpp")
    assert finding.verdict == WARNING
    assert finding.value == (
        "cannot be loaded: OSError: libllama.so: cannot open shared object file"
    )
    assert finding.command.endswith(build_checks._requirement())


def test_a_library_that_is_not_there_is_told(monkeypatch, startup, tmp_path):
    monkeypatch.setattr(build_checks, "_installed", lambda: "")
    finding = one(Trial({}, "ModuleNotFoundError: No module named 'llama_cpp'"), "llama.cpp")
    assert (finding.verdict, finding.value) == (WARNING, "is not installed")


def test_what_the_processor_has_and_the_build_does_not_use_is_a_note(monkeypatch):
    monkeypatch.setattr(llama_build, "supported", lambda: AVX2 | {"AVX512", "AVX512_VNNI"})
    monkeypatch.setattr(llama_build, "_compiler_takes", lambda option: True)
    finding = one(Trial(STEPS), "instructions")
    assert finding.verdict == NOTE
    assert "AVX512, AVX512_VNNI" in finding.value
    if llama_build.is_x86() and sys.platform == "linux":
        assert "-DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON" in finding.command
    assert finding.data["build"] == ["AVX", "AVX2", "BMI2", "F16C", "FMA", "REPACK"]


def test_what_the_build_uses_and_the_processor_lacks_is_a_warning(monkeypatch):
    monkeypatch.setattr(llama_build, "supported", lambda: AVX2 - {"AVX2"})
    assert one(Trial(STEPS), "instructions").verdict == WARNING


@pytest.mark.skipif(not llama_build.is_x86(), reason="of x86")
def test_amx_in_a_build_that_works_is_a_note():
    build = {"system_info": PORTABLE + "AMX_INT8 = 1 | ", "libraries": ["cpu"]}
    finding = one(Trial(STEPS | {"build": build}), "instructions")
    assert finding.verdict == NOTE
    assert "AMX" in finding.value


def test_a_processor_that_is_not_known_is_said(monkeypatch):
    monkeypatch.setattr(llama_build, "supported", lambda: None)
    assert one(Trial(STEPS), "instructions").verdict == OK


@pytest.mark.parametrize(
    ("steps", "end", "value"),
    [
        (["build", "threads"], "it hung", "asking for devices: it hung"),
        (["build", "threads", "devices", "gpu", "CPU"], "it died", "decoding on the GPU: it died"),
    ],
)
def test_the_step_that_failed_is_named(steps, end, value):
    finding = one(Trial({step: STEPS[step] for step in steps}, end), "decode")
    assert (finding.verdict, finding.value) == (WARNING, value)


def test_logits_that_are_no_numbers_are_a_warning():
    finding = one(Trial(STEPS | {"gpu": True, "GPU": False}), "decode")
    assert finding.verdict == WARNING
    assert finding.value.endswith("on the GPU")
    assert "--gpu-layers 0" in finding.advice


def test_without_the_embedded_model_no_decode_is_claimed():
    steps = {step: result for step, result in STEPS.items() if step != "CPU"}
    assert one(Trial(steps), "decode").value.startswith("not tried")


def test_devices_are_listed_with_their_memory():
    gpu = {"name": "CUDA0", "description": "NVIDIA X", "kind": "GPU", "free": 1 << 30}
    finding = one(Trial(STEPS | {"devices": [{**gpu, "total": 2 << 30}]}), "device")
    assert finding.value == "CUDA0: NVIDIA X (GPU), 1,024 of 2,048 MiB free"


@pytest.mark.parametrize(
    ("vendor", "option", "needs"),
    [("NVIDIA", "-DGGML_CUDA=ON", "nvcc"), ("AMD", "-DGGML_VULKAN=ON", "Vulkan SDK")],
)
def test_a_gpu_that_the_build_does_not_use_is_a_note(vendor, option, needs, monkeypatch):
    monkeypatch.setattr(build_checks, "gpu_vendors", lambda: [vendor])
    finding = one(Trial(STEPS), "GPU")
    assert finding.verdict == NOTE
    assert option in finding.command
    assert needs in finding.advice
    assert not found(Trial(STEPS | {"gpu": True, "GPU": True}), "GPU")


def test_a_build_for_a_gpu_that_no_device_answers_is_a_note():
    build = {"system_info": PORTABLE, "libraries": ["cpu", "cuda"]}
    finding = one(Trial(STEPS | {"build": build}), "GPU")
    assert finding.value == "the build has CUDA, and no device answers"


def test_gpus_are_told_by_their_vendors(tmp_path, monkeypatch):
    for i, vendor in enumerate(("0x1002", "0x1af4", "0x8086")):
        folder = tmp_path / f"card{i}" / "device"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setenv("PATH", "")
    assert {"AMD", "Intel"} <= set(gpu_vendors(tmp_path)) <= {"AMD", "Intel", "NVIDIA", "Apple"}


def test_another_version_of_llama_cpp_than_the_one_asked_for_is_a_warning(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["llama-cpp-python==0.0.1"])
    finding = one(Trial(STEPS), "versions")
    assert finding.verdict == WARNING
    assert finding.command.endswith("llama-cpp-python==0.0.1")
