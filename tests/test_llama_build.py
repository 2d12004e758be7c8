"""llama_build: CMAKE_ARGS for a machine, and what is made of a build that does not fit it."""

import os
import platform
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_eft import llama_build

SCRIPT = Path(llama_build.__file__)
AVX2 = "fpu sse4_2 avx avx2 f16c fma bmi2"
AVX512 = f"{AVX2} avx512f avx512cd avx512bw avx512dq avx512vl"
SAPPHIRE_RAPIDS = f"{AVX512} avx512vbmi avx512_vnni avx512_bf16 avx_vnni amx_tile amx_int8 amx_bf16"
PORTABLE = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | REPACK = 1 | "

on_x86_linux = pytest.mark.skipif(
    sys.platform != "linux" or not llama_build.is_x86(), reason="of x86 Linux"
)


@pytest.fixture
def x86_linux(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")


def cpuinfo(tmp_path, *cores, key="flags"):
    path = tmp_path / "cpuinfo"
    path.write_text("".join(f"processor\t: {i}\n{key}\t\t: {c}\n\n" for i, c in enumerate(cores)))
    return str(path)


@pytest.mark.usefixtures("x86_linux")
@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        (AVX2, "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF"),
        (f"{AVX2} avx_vnni", "-DGGML_NATIVE=OFF -DGGML_AVX_VNNI=ON -DLLAVA_BUILD=OFF"),
        (
            f"{AVX512} avx512_vnni",
            "-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DLLAVA_BUILD=OFF",
        ),
        (
            "sse4_2 avx f16c",
            "-DGGML_NATIVE=OFF -DGGML_AVX2=OFF -DGGML_FMA=OFF -DGGML_BMI2=OFF -DLLAVA_BUILD=OFF",
        ),
        (f"{AVX2} avx512f avx512_vnni", "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF"),
    ],
    ids=["AVX2", "AVX-VNNI", "AVX-512", "old", "AVX-512 in part"],
)
def test_the_machines_instruction_sets_are_named(flags, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_build, "_compiler_takes", lambda option: True)
    assert llama_build.cmake_args(llama_build.supported(cpuinfo(tmp_path, flags))) == arguments


@pytest.mark.usefixtures("x86_linux")
def test_amx_is_never_asked_for(tmp_path):
    path = cpuinfo(tmp_path, SAPPHIRE_RAPIDS)
    assert llama_build.has_amx(path)
    assert "AMX" not in llama_build.cmake_args(llama_build.supported(path))


@pytest.mark.usefixtures("x86_linux")
def test_what_not_all_cores_have_is_not_used(tmp_path):
    assert "AVX512" not in llama_build.supported(cpuinfo(tmp_path, SAPPHIRE_RAPIDS, AVX2))


@pytest.mark.usefixtures("x86_linux")
def test_what_the_compiler_does_not_know_is_left_out(tmp_path, monkeypatch):
    compiler = tmp_path / "old-cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *bf16*|*avxvnni*) exit 1;; esac\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"{compiler} -m64")
    arguments = llama_build.cmake_args(llama_build.supported(cpuinfo(tmp_path, SAPPHIRE_RAPIDS)))
    assert "AVX512_VNNI=ON" in arguments
    assert "BF16" not in arguments
    assert "AVX_VNNI" not in arguments


@pytest.mark.usefixtures("x86_linux")
@pytest.mark.parametrize("compiler", ["'", "gcc \\", "nowhere/cc", " "])
def test_a_compiler_that_cannot_be_asked_changes_nothing(monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert "AVX512=ON" in llama_build.cmake_args(frozenset(llama_build.X86))


@pytest.mark.usefixtures("x86_linux")
def test_ones_own_arguments_come_last():
    assert llama_build.cmake_args(frozenset(llama_build.X86), "-DGGML_AVX2=OFF").endswith(
        " -DGGML_AVX2=OFF"
    )


@pytest.mark.usefixtures("x86_linux")
def test_who_names_native_chooses_all_instruction_sets():
    """CI's wheel is to run on whichever machine it gets next."""
    own = "-DGGML_NATIVE=OFF"
    assert llama_build.cmake_args(frozenset(llama_build.X86), own) == f"-DLLAVA_BUILD=OFF {own}"


def test_elsewhere_the_default_build_is_kept(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert llama_build.cmake_args(frozenset({"DOTPROD"})) == "-DLLAVA_BUILD=OFF"


def test_a_processor_that_is_not_known_is_none(tmp_path):
    assert llama_build.supported(str(tmp_path / "nothing")) is None
    assert llama_build.match(["AVX2"], None) == ((), ())


def test_arm_is_read_from_its_own_names(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    path = cpuinfo(tmp_path, "fp asimd asimddp i8mm", key="Features")
    assert llama_build.supported(path) == {"DOTPROD", "MATMUL_INT8"}


def test_macos_is_asked_by_sysctl(tmp_path, monkeypatch):
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(
        "#!/bin/sh\necho hw.optional.arm.FEAT_I8MM: 0\necho hw.optional.arm.FEAT_DotProd: 1\n"
    )
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert llama_build.supported() == {"DOTPROD"}


def test_the_system_info_is_read_by_backend():
    built = llama_build.compiled(
        "CUDA : ARCHS = 500,860 | USE_GRAPHS = 1 | CPU : AVX2 = 1 | SVE_CNT = 16 | "
    )
    assert built == {
        "CUDA": {"ARCHS": "500,860", "USE_GRAPHS": "1"},
        "CPU": {"AVX2": "1", "SVE_CNT": "16"},
    }
    assert llama_build.compiled("") == {}


def test_a_build_is_slower_or_deadly():
    built = llama_build.compiled(PORTABLE)["CPU"]
    assert llama_build.match(built, set(llama_build.X86) - {"BMI2"}) == (
        ("AVX_VNNI", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"),
        ("BMI2",),
    )


def test_wide_vnni_makes_the_narrow_one_needless():
    has = set(llama_build.X86)
    assert llama_build.match(has - {"AVX_VNNI"}, has).lacking == ()


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("uv-receipt.toml", "uv tool upgrade --reinstall-package llama-cpp-python"),
        ("pipx_metadata.json", "pipx runpip edge-eft install --force-reinstall"),
        (None, "pip install --force-reinstall"),
    ],
)
def test_the_command_is_of_what_installed_edge_eft(file, command, tmp_path, monkeypatch):
    if file:
        (tmp_path / file).touch()
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
    said = llama_build.install_command("-DX=1", requirement="llama-cpp-python==1")
    assert said.startswith(f'CMAKE_ARGS="-DX=1" {command}')


# -- as the Makefile runs it ---------------------------------------------------------------


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "CMAKE_ARGS": "", **environment},
        timeout=60,
    )


def test_it_needs_the_standard_library_alone():
    done = run("-I", "-S", str(SCRIPT), "flags", "-DGGML_CUDA=ON")
    assert done.returncode == 0, done.stderr
    assert done.stdout == llama_build.cmake_args(llama_build.supported(), "-DGGML_CUDA=ON") + "\n"


def test_unknown_words_are_told_the_usage():
    assert run("-I", str(SCRIPT), "what").returncode == 2


def test_the_installed_build_passes():
    assert run("-I", str(SCRIPT), "check").returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("own", ["", "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES='86;89'"])
def test_make_hands_on_the_flags_of_this_machine_and_ones_own(own):
    """Quotes and semicolons, which lists of CMake have, survive the shell."""
    done = subprocess.run(
        ["make", "-np", f"CMAKE_ARGS={own}", f"PYTHON={sys.executable}", "lint"],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[1],
    )
    expected = llama_build.cmake_args(llama_build.supported(), own)
    assert f"\nCMAKE_ARGS := {expected}\n" in done.stdout


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_is_timed_on_a_terminal_alone_and_its_status_is_handed_on(status):
    command = [sys.executable, "-c", f"import time; time.sleep(1.1); raise SystemExit({status})"]
    done = run("-I", str(SCRIPT), "timed", *command)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-I", str(SCRIPT), "timed", *command], stderr=theirs)
    shown = os.read(ours, 999)
    os.close(theirs)
    os.close(ours)
    assert re.fullmatch(rb"(0:0[1-9]\r)+\x1b\[2K", shown)


def test_setting_up_says_the_step():
    text = (SCRIPT.parents[1] / "Makefile").read_text("utf-8")
    said = re.findall(r"step (\d) of (\d)", text)
    assert said == [("1", "3"), ("2", "3"), ("3", "3")]


FAKE = "def llama_print_system_info(): return {!r}.encode()"


@on_x86_linux
@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        (FAKE.format(PORTABLE + "AMX_INT8 = 1 | "), "", "was built with AMX"),
        ("import os; os.kill(os.getpid(), 4)", "", "cannot be loaded (status -4)"),
        ("raise OSError('no libgomp.so.1')", "", "cannot be loaded (OSError: no libgomp.so.1)"),
        (FAKE.format("CPU : BMI2 = 1 | "), "-DGGML_CUDA=ON", "was built without CUDA"),
    ],
    ids=["AMX", "SIGILL", "not loadable", "no CUDA"],
)
def test_a_build_that_would_die_or_lacks_the_gpu_is_replaced(module, arguments, says, tmp_path):
    """A cached wheel of another kind must not outlive `make`."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(module)
    done = run(str(SCRIPT), "check", PYTHONPATH=str(tmp_path), CMAKE_ARGS=arguments)
    assert done.returncode == 1
    assert f"{says}" in done.stderr
    assert "it is compiled again" in done.stderr


@on_x86_linux
def test_a_build_that_is_slower_is_kept_and_said(tmp_path, monkeypatch, capsys):
    """Compiling takes minutes, and the cache's wheel works."""
    (tmp_path / "llama_cpp" / "lib").mkdir(parents=True)
    (tmp_path / "llama_cpp" / "__init__.py").write_text(FAKE.format(PORTABLE))
    (tmp_path / "llama_cpp" / "lib" / "libggml-cuda.so").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.setattr(llama_build, "supported", lambda: frozenset(llama_build.X86))
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_AVX512=ON -DGGML_CUDA=ON")
    assert llama_build.main(["check"]) == 0
    assert "does not use AVX512 of this processor" in capsys.readouterr().err
