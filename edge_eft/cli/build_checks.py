"""What `doctor` looks at in the installation: versions, the build of llama.cpp, its devices.

Native code is tried in a child (`backend.probe`), which may die or hang in our place; nothing here
loads it. So all of this works where llama.cpp cannot be loaded at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import llama_build
from ..system import mebibytes, versions
from .finding import NOTE, WARNING, Finding, foreign

PROBE_SECONDS = 90  # some drivers take half a minute when they are first used
_PROBE = "edge_eft.backend.probe"
_LAST = "end"  # its last step
_MAX_WORDS = 300  # characters of what a child said last
_PACKAGE_ROOT = str(Path(__file__).parents[2])
_LIBRARY = "llama-cpp-python"
# PCI vendors in Linux' /sys; what virtual machines show is none of them.
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


@dataclass(frozen=True)
class Trial:
    """What came of trying llama.cpp out: the steps that were reached, and how it ended.

    Attributes:
        steps: step → what came of it.
        end: why it went no further; "" if it did all.
        fatal: the signal that ended it, such as "SIGILL"; "" for another end.
    """

    steps: Mapping[str, Any]
    end: str = ""
    fatal: str = ""

    @property
    def loaded(self) -> bool:
        """Whether llama.cpp could be loaded."""
        return "build" in self.steps


def try_out(model: Path | None, seconds: int = PROBE_SECONDS) -> Trial:
    """Load llama.cpp in a child, ask it what it is, and decode a few tokens of `model`."""
    command = [sys.executable, "-P", "-m", _PROBE, str(seconds), *([str(model)] if model else [])]
    path = os.pathsep.join([_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"}
    limit = f"it hung, and was ended after {seconds} s"
    try:
        status, told, words = _run(command, environment, seconds)
    except OSError as error:  # no more processes, no memory, or Python is not where it says
        return Trial({}, foreign(error.strerror or str(error)))
    steps = _steps(told)
    if status == 0 and _LAST in steps:
        return Trial(steps)
    if status is None or -status == getattr(signal, "SIGALRM", None):
        return Trial(steps, limit)
    said = words.decode("utf-8", "replace").strip().splitlines()
    last = foreign(said[-1][:_MAX_WORDS]) if said else "it gave no reason"
    if status >= 0:
        return Trial(steps, last)
    known = {number.value: number.name for number in signal.Signals}
    fatal = known.get(-status, f"signal {-status}")
    return Trial(steps, f"it died of {fatal}" + (f" ({last})" if said else ""), fatal)


def _run(
    command: Sequence[str], environment: Mapping[str, str], seconds: int
) -> tuple[int | None, bytes, bytes]:
    """Run a process. Returns its exit status, stdout and stderr; None as the status if it hung.

    Not `child.Child` or `subprocess.run`: they wait for the end of what was killed, and a process
    that is stuck in a driver does not end.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment
    )
    try:
        told, words = process.communicate(timeout=seconds)
        return process.returncode, told, words
    except subprocess.TimeoutExpired as error:
        return None, error.stdout or b"", b""
    finally:
        process.kill()


def embedded_model() -> Path | None:
    """Return the base of the embedded family, or None if it is not here."""
    from ..files.recipe_names import embedded_recipes, load_recipe

    if "atlas" not in (embedded := embedded_recipes()):
        return None
    base = load_recipe(embedded["atlas"]).base
    return base.file if base and base.file.is_file() else None


def _steps(told: bytes) -> dict[str, Any]:
    whole = told.decode("utf-8", "replace").rpartition("\n")[0]
    steps = {}
    for line in whole.splitlines():
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            event = json.loads(line)  # what a package prints while it is imported is none
            steps[event["step"]] = event["result"]
    return {step: result for step, result in steps.items() if isinstance(step, str)}


def examine(trial: Trial) -> Iterator[Finding]:
    """Yield what there is to say of the installation, the versions first."""
    yield from _versions()
    yield _build(trial)
    if trial.loaded:
        yield _instruction_sets(trial)
        yield _decode(trial)
        yield from _devices(trial)
    yield from _gpu_left_out(trial)


# -- versions ------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    names = (_LIBRARY, "numpy", "gguf", "huggingface-hub", "jinja2", "click")
    python, way = platform.python_version(), _way()
    own = versions("edge-eft") or "edge-eft without metadata"
    value = ", ".join(filter(None, (f"{own} ({way})", versions(*names), f"Python {python}")))
    yield _pinned(Finding("versions", value, data={"python": python, "from": way}))
    yield _machine()


def _way() -> str:
    """Return what this package runs from."""
    is_checkout = (Path(_PACKAGE_ROOT) / "pyproject.toml").is_file()
    return "a checkout" if is_checkout else "installed as a wheel"


def _pinned(finding: Finding) -> Finding:
    wanted, installed = _requirement(), _installed()
    if not installed or "==" not in wanted or wanted.partition("==")[2] == installed:
        return finding
    return Finding(
        finding.name,
        finding.value,
        WARNING,
        f"edge-eft goes with {wanted}: others have another binary interface; install it",
        _reinstall(),
        finding.data,
    )


def _requirement() -> str:
    """Return which llama-cpp-python edge-eft goes with, as pip writes it."""
    try:
        required = metadata.requires("edge-eft") or []
    except metadata.PackageNotFoundError:  # run from a checkout
        required = []
    return next((line for line in required if line.startswith(_LIBRARY)), _LIBRARY)


def _installed() -> str:
    try:
        return metadata.version(_LIBRARY)
    except metadata.PackageNotFoundError:
        return ""


def _reinstall(own: str = "") -> str:
    arguments = llama_build.cmake_args(llama_build.supported(), own)
    return llama_build.install_command(arguments, requirement=_requirement())


def _machine() -> Finding:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "darwin":
        system = f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    elif distribution := _distribution():
        system = f"{distribution}, {system}"
    data = {"system": platform.system(), "machine": platform.machine(), "cpu": _processor()}
    value = ", ".join(filter(None, (system, _processor())))
    if (
        sys.platform == "darwin"
        and llama_build.asked("sysctl", "-n", "sysctl.proc_translated") == "1"
    ):
        return Finding(
            "machine",
            f"{value}, translated by Rosetta",
            NOTE,
            "this Python is for Intel, and much slower; install edge-eft with one for arm64",
            data=data,
        )
    return Finding("machine", value, data=data)


def _distribution() -> str:
    """Return which Linux this is, or ""; a container has its own."""
    try:
        return foreign(platform.freedesktop_os_release().get("PRETTY_NAME", ""))
    except OSError:  # another system, or one that does not say
        return ""


def _processor() -> str:
    if sys.platform == "darwin":
        return llama_build.asked("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor()
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return named[1] if named else ""


# -- the build -----------------------------------------------------------------------------


def _build(trial: Trial) -> Finding:
    """Return whether llama.cpp loads, and what it was compiled with."""
    name, installed = "llama.cpp", _installed()
    if not trial.loaded:
        value = f"cannot be loaded: {trial.end}" if installed else "is not installed"
        fix = "install it again; it is compiled, which takes some minutes and a C++ compiler"
        if trial.fatal == "SIGILL":
            fix = "it was compiled for another processor; compile it for this one"
        return Finding(name, value, WARNING, fix, _reinstall())
    built = llama_build.compiled(trial.steps["build"]["system_info"])
    libraries = trial.steps["build"]["libraries"]
    features = [feature for feature, value in built.get("CPU", {}).items() if value != "0"]
    backends = ", ".join(library.upper() for library in libraries)
    value = f"backends {backends}; CPU with {' '.join(features)}"
    return Finding(name, value, data={"backends": libraries, "features": built})


def _instruction_sets(trial: Trial) -> Finding:
    """Return whether the build uses what the processor has, and nothing else."""
    name = "instructions"
    built = llama_build.compiled(trial.steps["build"]["system_info"]).get("CPU", {})
    has = llama_build.supported()
    if has is None:
        return Finding(name, "what the processor has is not known on this system")
    data = {"processor": sorted(has), "build": sorted(built)}
    lacking, deadly = llama_build.match(built, has)
    if deadly:
        value = f"the build uses {', '.join(deadly)}, which this processor does not have"
        return Finding(name, value, WARNING, "compile it for this processor", _reinstall(), data)
    if lacking:
        value = f"the processor has {', '.join(lacking)}, and the build does not use them"
        fix = "batches (prompts, drafts) would be faster; reinstall with"
        return Finding(name, value, NOTE, fix, _reinstall(), data)
    if llama_build.AMX in built and llama_build.is_x86():
        value = "the build uses AMX, which many virtual machines show and do not have"
        fix = "if it dies of SIGILL, here or where it is copied to, reinstall with"
        return Finding(name, value, NOTE, fix, _reinstall(), data)
    amx = "; AMX is left out on purpose" if llama_build.has_amx() else ""
    return Finding(name, f"the build uses what the processor has{amx}", data=data)


def _decode(trial: Trial) -> Finding:
    """Return whether a decode on the CPU works, and on the GPU if there is one."""
    name = "decode"
    tried = [where for where in ("CPU", "GPU") if where in trial.steps]
    ways = " and ".join(f"the {where}" for where in tried)
    wrong = [where for where in tried if not trial.steps[where]]
    if wrong:
        value = f"gives logits that are no numbers on the {' and the '.join(wrong)}"
        fix = "update the driver, or keep to the CPU: --gpu-layers 0"
        return Finding(name, value, WARNING, fix)
    if not trial.end:
        if not tried:
            return Finding(name, "not tried: no embedded model is here")
        return Finding(name, f"a prompt and a token of the embedded model work on {ways}")
    if "devices" not in trial.steps or "gpu" not in trial.steps:
        where, fix = "asking for devices", "update the GPU's driver, or reinstall without it"
    elif "CPU" in trial.steps:
        where, fix = "decoding on the GPU", "update its driver, or keep to the CPU: --gpu-layers 0"
        return Finding(name, f"{where}: {trial.end}", WARNING, fix)
    else:
        where, fix = "decoding on the CPU", "compile it anew"
        if trial.fatal == "SIGILL":
            fix = "it uses instructions that this processor does not have; compile it for this one"
    return Finding(name, f"{where}: {trial.end}", WARNING, fix, _reinstall())


# -- devices -------------------------------------------------------------------------------


def _devices(trial: Trial) -> Iterator[Finding]:
    for device in trial.steps.get("devices", ()):
        memory = ""
        if device["total"] and device["kind"] != "CPU":  # the CPU's has a line of its own
            free, total = mebibytes(device["free"]), mebibytes(device["total"])
            memory = f", {free} of {total} MiB free"
        kind = f" ({device['kind']})" * (device["kind"] != device["name"])
        about = f"{device['name']}: {foreign(device['description'])}{kind}{memory}"
        yield Finding(
            "device", about, data={**device, "description": foreign(device["description"])}
        )


def _gpu_left_out(trial: Trial) -> Iterator[Finding]:
    """Yield a note on a GPU that is there and that this build does not use, or that none is."""
    if trial.steps.get("gpu") or (trial.loaded and trial.end):
        return
    has = trial.steps["build"]["libraries"] if trial.loaded else []
    built = [library.upper() for library in has if library.upper() in llama_build.GPU_BACKENDS]
    if built:
        yield Finding(
            "GPU",
            f"the build has {', '.join(built)}, and no device answers",
            NOTE,
            "check the driver (nvidia-smi, vulkaninfo), and in a container that it gets the device",
        )
        return
    vendors = gpu_vendors()
    if not vendors:
        yield Finding("GPU", "none is seen here; the CPU does it all")
    for vendor in vendors:
        backend = {"NVIDIA": "CUDA", "Apple": "METAL"}.get(vendor, "VULKAN")
        own = f"-DGGML_{backend}=ON"
        needs = {"CUDA": "the CUDA toolkit (nvcc)", "VULKAN": "the Vulkan SDK (glslc)"}
        if backend == "CUDA":
            own += " -DCMAKE_CUDA_ARCHITECTURES=native"
        fix = f"with {needs[backend]} installed, " * (backend in needs) + "reinstall with"
        value = f"one of {vendor} is here, and this build does not use it"
        yield Finding("GPU", value, NOTE, fix, _reinstall(own), {"vendor": vendor})


def gpu_vendors(sys_class: Path = Path("/sys/class/drm")) -> list[str]:
    """Return who made the GPUs that the system shows: NVIDIA, AMD, Intel, Apple."""
    found = set()
    if sys.platform == "darwin" and not llama_build.is_x86():
        found.add("Apple")
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        found.add("NVIDIA")
    for file in sys_class.glob("card*/device/vendor"):
        try:
            found.add(_VENDORS.get(file.read_text().strip(), ""))
        except OSError:
            continue
    return sorted(found - {""})
