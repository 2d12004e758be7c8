"""Which build of llama.cpp suits this processor, and whether the installed one does.

llama.cpp is compiled when llama-cpp-python is installed, with `CMAKE_ARGS` from the environment. By
default it takes whatever the compiler finds (-march=native), which on virtual machines that show
AMX dies of SIGILL. So on x86 Linux the instruction sets are named one by one, and never AMX.
pip's cache does not know these arguments: the wheel in it may have been built with others.

The Makefile runs this file by its path before anything is installed, so it needs the standard
library alone and imports nothing of ours; `edge-eft doctor` asks the same functions.

    python -I edge_eft/llama_build.py flags [OWN]   prints the CMAKE_ARGS for here, and one's own
    python -I edge_eft/llama_build.py check         status 1 if the installed build must go
    python -I edge_eft/llama_build.py timed COMMAND  runs it, and shows a terminal how long it takes
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Feature(NamedTuple):
    """An instruction set that llama.cpp can be built with, on x86.

    Attributes:
        option: of ggml's CMakeLists.txt.
        flags: of /proc/cpuinfo, all of which it needs.
        compiler: the option of gcc and clang, which old ones may not know.
        default: whether a build with GGML_NATIVE=OFF has it unless it is told not to.
    """

    option: str
    flags: frozenset[str]
    compiler: str
    default: bool = False


def _feature(name: str, flags: str, compiler: str, default: bool = False) -> Feature:
    return Feature(f"GGML_{name}", frozenset(flags.split()), compiler, default)


_WIDE = "avx512f avx512cd avx512bw avx512dq avx512vl"  # what GGML_AVX512 compiles in
# By the names of `llama_print_system_info` (ggml/src/ggml-cpu/ggml-cpu.cpp).
X86 = {
    "AVX": _feature("AVX", "avx", "-mavx", True),
    "AVX2": _feature("AVX2", "avx2", "-mavx2", True),
    "F16C": _feature("F16C", "f16c", "-mf16c", True),
    "FMA": _feature("FMA", "fma", "-mfma", True),
    "BMI2": _feature("BMI2", "bmi2", "-mbmi2", True),
    "AVX_VNNI": _feature("AVX_VNNI", "avx_vnni", "-mavxvnni"),
    "AVX512": _feature("AVX512", _WIDE, "-mavx512bw"),
    "AVX512_VBMI": _feature("AVX512_VBMI", f"{_WIDE} avx512vbmi", "-mavx512vbmi"),
    "AVX512_VNNI": _feature("AVX512_VNNI", f"{_WIDE} avx512_vnni", "-mavx512vnni"),
    "AVX512_BF16": _feature("AVX512_BF16", f"{_WIDE} avx512_bf16", "-mavx512bf16"),
}
# On ARM the default build finds these itself: /proc/cpuinfo's name, macOS' sysctl.
ARM = {
    "DOTPROD": ("asimddp", "hw.optional.arm.FEAT_DotProd"),
    "MATMUL_INT8": ("i8mm", "hw.optional.arm.FEAT_I8MM"),
    "SVE": ("sve", ""),
}
AMX = "AMX_INT8"
# GPU backends are libraries of their own beside ggml's.
GPU_BACKENDS = ("CUDA", "VULKAN", "METAL", "HIP", "SYCL")
_CHILD_SECONDS = 60
_PRINT_INFO = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


def is_x86() -> bool:
    """Return whether this machine runs x86-64 code."""
    return platform.machine().lower() in ("x86_64", "amd64")


def supported(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str] | None:
    """Return which instruction sets this processor has, by llama.cpp's names.

    None where the system does not say: on Windows, and on Macs with Intel's processors.
    """
    if sys.platform == "darwin" and not is_x86():
        lines = asked("sysctl", "hw.optional.arm").splitlines()
        return frozenset(name for name, (_, key) in ARM.items() if f"{key}: 1" in lines)
    try:
        text = Path(cpuinfo).read_text("utf-8", "replace")
    except OSError:
        return None
    # Each core has a line; what not all of them have is not to be used.
    cores = [
        set(words.split()) for words in re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    ]
    if not cores:
        return None
    common = set.intersection(*cores)
    if is_x86():
        return frozenset(name for name, feature in X86.items() if feature.flags <= common)
    return frozenset(name for name, (flag, _) in ARM.items() if flag in common)


def has_amx(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Return whether the processor, or what a virtual machine shows of it, has AMX."""
    try:
        return " amx_int8" in Path(cpuinfo).read_text("utf-8", "replace")
    except OSError:
        return False


def compiled(system_info: str) -> Mapping[str, Mapping[str, str]]:
    """Return what `llama_print_system_info` says: backend → feature → value."""
    backends: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for entry in system_info.split(" | "):
        name, separator, rest = entry.strip().rpartition(" : ")
        if separator:
            current = backends.setdefault(name, {})
        feature, separator, value = rest.partition(" = ")
        if separator:
            current[feature.strip()] = value.strip()
    return backends


class Match(NamedTuple):
    """The build against the processor, by llama.cpp's names of instruction sets.

    Attributes:
        lacking: the processor has them, and the build does not use them: it is slower.
        deadly: the build may use them, and the processor does not have them.
    """

    lacking: tuple[str, ...]
    deadly: tuple[str, ...]


def match(built: Iterable[str], has: Iterable[str] | None) -> Match:
    """Compare the CPU features of a build with those of the processor; None: not known."""
    if has is None:
        return Match((), ())
    known = [*X86, *ARM]
    built, has = set(built), set(has)
    # Wider VNNI makes the narrow one needless.
    wanted = has - {"AVX_VNNI"} if "AVX512_VNNI" in built else has
    return Match(
        tuple(name for name in known if name in wanted - built),
        tuple(name for name in known if name in built - has),
    )


def cmake_args(has: Iterable[str] | None, own: str = "") -> str:
    """Return the CMAKE_ARGS of a build for a processor with the instruction sets `has`.

    Elsewhere than on x86 Linux llama.cpp's own choice is right: on macOS it is the Metal build.
    `own` are the user's, which come last, so that they count. Who names GGML_NATIVE chooses all
    instruction sets: -DGGML_NATIVE=OFF alone is a build for any processor with AVX2.
    """
    chosen = []
    if has is not None and is_x86() and sys.platform == "linux" and "GGML_NATIVE" not in own:
        has = set(has)
        chosen.append("-DGGML_NATIVE=OFF")
        for name, feature in X86.items():
            if feature.default and name not in has:
                chosen.append(f"-D{feature.option}=OFF")
            elif not feature.default and name in has and _compiler_takes(feature.compiler):
                chosen.append(f"-D{feature.option}=ON")
    chosen.append("-DLLAVA_BUILD=OFF")  # for pictures; it lengthens the build
    return " ".join([*chosen, own]).strip()


def install_command(
    arguments: str, *, requirement: str = "llama-cpp-python", pip: str = "pip"
) -> str:
    """Return what a person types to compile llama.cpp anew with these CMAKE_ARGS.

    Without --no-binary and --no-cache-dir the wheel that was built before comes back.
    """
    again = "--no-deps --no-binary llama-cpp-python"
    if (Path(sys.prefix) / "uv-receipt.toml").is_file():  # uv tool install; this keeps the extras
        command = "uv tool upgrade --reinstall-package llama-cpp-python --no-cache edge-eft"
    elif (Path(sys.prefix) / "pipx_metadata.json").is_file():
        command = f"pipx runpip edge-eft install --force-reinstall --no-cache-dir {again}"
        command += f" {requirement}"
    elif importlib.util.find_spec("pip") is None:
        command = f"uv pip install --reinstall --no-cache {again} {requirement}"
    else:
        command = f"{pip} install --force-reinstall --no-cache-dir {again} {requirement}"
    if os.name == "nt":
        return f"$env:CMAKE_ARGS='{arguments}'; {command}"
    return f'CMAKE_ARGS="{arguments}" {command}'


def _compiler_takes(option: str) -> bool:
    """Return whether the C compiler knows `option`; without a compiler no build comes of it."""
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError:  # a quote without its other
        return True
    if shutil.which(compiler[0]) is None:
        return True
    command = [*compiler, option, "-E", "-x", "c", os.devnull, "-o", os.devnull]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_CHILD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def asked(*command: str) -> str:
    """Return what a command prints; "" if there is no such command, or it hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


# -- for the Makefile ----------------------------------------------------------------------


def _faults(arguments: str) -> Iterable[str]:
    """Yield why the installed build must be replaced; asked of a child, which it may kill.

    Of one that is only slower, as `arguments` would make it faster, it is said.
    """
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.submodule_search_locations:
        yield "is not installed"
        return
    libraries = Path(found.submodule_search_locations[0]) / "lib"
    for backend in GPU_BACKENDS:
        wanted = re.search(rf"-DGGML_{backend}=(ON|1|TRUE|YES)\b", arguments, re.IGNORECASE)
        if wanted and not [*libraries.glob(f"*ggml-{backend.lower()}*")]:
            yield f"was built without {backend}, which CMAKE_ARGS asks for"
    try:
        info = subprocess.run(
            [sys.executable, "-I" if sys.flags.isolated else "-P", "-c", _PRINT_INFO],
            capture_output=True,
            text=True,
            timeout=_CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield f"does not load within {_CHILD_SECONDS} s"
        return
    if info.returncode:
        last = (info.stderr.strip().splitlines() or [f"status {info.returncode}"])[-1]
        yield f"cannot be loaded ({last})"
        return
    built = compiled(info.stdout).get("CPU", {})
    if AMX in built and is_x86():
        yield "was built with AMX, which virtual machines show and do not have"
    if deadly := match(built, supported()).deadly:
        yield f"uses {', '.join(deadly)}, which this processor lacks"
    elif slower := [
        name for name in match(built, supported()).lacking if f"GGML_{name}=ON" in arguments
    ]:
        command = install_command(arguments, pip=f"{sys.executable} -m pip")
        _say(f"does not use {', '.join(slower)} of this processor; one that does: {command}")


def _say(about: str) -> None:
    print(f"llama.cpp, as installed or from pip's cache, {about}", file=sys.stderr)


def timed(command: list[str]) -> int:
    """Run a command that is quiet for minutes, and show a terminal how many. Returns its status."""
    begun = time.monotonic()
    looks = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with contextlib.suppress(KeyboardInterrupt), subprocess.Popen(command) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            seconds = round(time.monotonic() - begun)
            if looks:  # what the command says itself goes over it
                print(f"{seconds // 60}:{seconds % 60:02d}", end="\r", file=sys.stderr, flush=True)
        if looks:
            print("\x1b[2K", end="", file=sys.stderr, flush=True)
        return process.returncode
    return 130


def main(words: list[str]) -> int:
    """Do what the words say. Returns the exit status."""
    if words[:1] == ["flags"]:
        print(cmake_args(supported(), " ".join(words[1:])))
        return 0
    if words == ["check"]:
        faults = [*_faults(os.environ.get("CMAKE_ARGS", ""))]
        for fault in faults:
            _say(f"{fault}; it is compiled again")
        return int(bool(faults))
    if words[:1] == ["timed"] and words[1:]:
        return timed(words[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
