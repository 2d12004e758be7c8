"""llama.cpp's own conversion scripts: finding them, and running them on a model directory.

They are not in the wheel of llama-cpp-python but in its source distribution. That is fetched once
with pip, at exactly the version that is installed, so that the scripts and the library that reads
their output belong together; its sha256 is compared with what the index states; and only the
scripts are unpacked, into the cache directory. The mapping of tensors is theirs, never ours. They
run in a child process with a clean environment, as scripts of ours do that load such directories.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..child import Child
from ..errors import ConversionError
from ..files.hashes import file_sha256
from ..files.plain_text import reason
from ..system import cache_directory, installed_version

HF_SCRIPT = "convert_hf_to_gguf.py"
LORA_SCRIPT = "convert_lora_to_gguf.py"
_NEEDED_MODULES = ("torch", "transformers", "sentencepiece")
_WANTED = re.compile(
    r"vendor/llama\.cpp/(?:convert_(?:hf|lora)_to_gguf\.py|LICENSE"
    r"|conversion/[\w.-]+\.py|gguf-py/gguf/[\w./-]+\.py|gguf-py/LICENSE)"
)
_MAX_FILE_BYTES = 16 << 20
_WRITING = re.compile(r"Writing:\s+(\d+)%")

# What a script needs of the surroundings; no PYTHON* settings, no tokens, no proxies.
_KEPT = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")


def require_modules(*extra: str) -> None:
    """Raise ConversionError unless the packages that the scripts import are installed."""
    missing = [m for m in (*_NEEDED_MODULES, *extra) if importlib.util.find_spec(m) is None]
    if missing:
        raise ConversionError(
            f"converting a Hugging Face directory needs {', '.join(missing)}: "
            "pip install '.[convert]'"
        )


def find_scripts(checkout: Path | None) -> Path:
    """Return the directory that holds llama.cpp's conversion scripts.

    Args:
        checkout: a llama.cpp checkout to use; None: those of the installed llama-cpp-python,
            fetched with pip if the cache has none.

    Raises:
        ConversionError: the checkout holds none, pip cannot get them, or they cannot be kept.
    """
    if checkout is not None:
        if not (checkout / HF_SCRIPT).is_file():
            raise ConversionError(f"{checkout} is not a llama.cpp checkout: it has no {HF_SCRIPT}")
        return checkout.resolve()
    version = installed_version()
    try:
        place = cache_directory() / f"llama-cpp-python-{version}-scripts"
        if not (place / HF_SCRIPT).is_file():
            _fetch(version, place)
    except OSError as error:
        raise ConversionError(
            f"llama.cpp's conversion scripts cannot be kept ({reason(error)}); "
            "EDGE_EFT_CACHE names another directory, --llama-cpp a checkout that has them"
        ) from None
    return place


def _fetch(version: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    # Next to its final place, so that one rename puts it there whole.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-") as scratch:
        archive = _download(version, Path(scratch))
        unpacked = Path(scratch) / "scripts"
        unpack_scripts(archive, unpacked)
        try:
            os.replace(unpacked, place)
        except OSError:
            if not (place / HF_SCRIPT).is_file():  # else another process was first
                raise


def _download(version: str, scratch: Path) -> Path:
    """Fetch the sdist, checked twice: by pip on arrival, and here against the index's statement."""
    requirement = f"llama-cpp-python=={version}"
    only_source = ["--no-deps", "--no-binary", "llama-cpp-python"]
    report = scratch / "report.json"
    _pip(
        "install",
        "--dry-run",
        "--ignore-installed",
        "--report",
        str(report),
        *only_source,
        requirement,
    )
    info = json.loads(report.read_text())["install"][0]["download_info"]
    stated = info.get("archive_info", {}).get("hashes", {}).get("sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", stated):
        raise ConversionError(f"the package index states no sha256 for {requirement}")
    _pip("download", "--dest", str(scratch), *only_source, requirement)
    archives = list(scratch.glob("*.tar.gz"))
    if len(archives) != 1:
        raise ConversionError(f"pip got no source distribution of {requirement}")
    seen = file_sha256(archives[0])
    if seen != stated:
        raise ConversionError(
            f"the source distribution of {requirement} has sha256 {seen}, but the index states "
            f"{stated}: do not use it"
        )
    return archives[0]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ConversionError(
            f"pip cannot get llama.cpp's conversion scripts: {last} (offline? use --llama-cpp DIR)"
        )


def unpack_scripts(archive: Path, target: Path) -> None:
    """Unpack the conversion scripts of an sdist into `target`, regular files only.

    Member names are matched against the few that are wanted, and everything else, links and
    absolute or climbing paths included, is passed over.

    Raises:
        ConversionError: the archive is damaged or lacks the scripts.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _, _, inner = member.name.partition("/")
                if not _WANTED.fullmatch(inner) or not member.isreg():
                    continue
                parts = PurePosixPath(inner).parts[2:]
                if ".." in parts or member.size > _MAX_FILE_BYTES:
                    continue
                source = tar.extractfile(member)
                assert source is not None  # isreg
                path = target.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConversionError(f"cannot unpack {archive.name}: {error}") from None
    if not (target / HF_SCRIPT).is_file():
        raise ConversionError(f"{archive.name} does not hold llama.cpp's {HF_SCRIPT}")


def run_script(
    script: Path,
    arguments: list[str],
    *,
    on_stderr: Callable[[str], None] | None = None,
) -> None:
    """Run a Python script in a clean environment, offline, on this interpreter.

    Raises:
        ConversionError: it failed, with the last line that it wrote.
    """
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    runner = Path(__file__).with_name("script_main.py")
    child = Child([str(runner), str(script), *arguments], environment, on_stderr)
    try:
        for _ in child.stdout:
            pass
        status = child.wait()
    finally:
        reason = child.end()
    if status:
        raise ConversionError(f"{script.name} failed: {reason}")


def hf_to_gguf(
    scripts: Path,
    model: Path,
    target: Path,
    *,
    dtype: str,
    name: str,
    vocab_only: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Convert a Hugging Face directory with llama.cpp's script.

    Args:
        scripts: from `find_scripts`.
        dtype: `f32`, `f16` or `bf16`.
        name: for general.name, else the script guesses one from the directory.
        vocab_only: header and tokenizer only; takes seconds.

    Raises:
        ConversionError: the script refused the directory, with its last line.
    """

    def on_stderr(line: str) -> None:
        if on_progress and (match := _WRITING.search(line)):
            on_progress(int(match[1]), 100)

    arguments = [str(model), "--outfile", str(target), "--outtype", dtype, "--model-name", name]
    if vocab_only:
        arguments.append("--vocab-only")
    try:
        run_script(scripts / HF_SCRIPT, arguments, on_stderr=on_stderr)
    except ConversionError as error:
        raise ConversionError(f"{model}: {error}") from None
    if not target.is_file():
        raise ConversionError(f"{model}: {HF_SCRIPT} wrote no file")
    if vocab_only:
        _give_one_tensor(target)


def _give_one_tensor(path: Path) -> None:
    """Append a tensor to a GGUF file that has none: `gguf_check` refuses such files elsewhere."""
    name = b"vocabulary_only"
    with open(path, "rb+") as file:
        file.seek(8)
        file.write(struct.pack("<Q", 1))  # the number of tensors, after magic and version
        end = file.seek(0, os.SEEK_END)
        # Name, dimensions, shape, type F32, offset; the data begins at a multiple of 32.
        info = struct.pack(f"<Q{len(name)}sIQIQ", len(name), name, 1, 8, 0, 0)
        file.write(info.ljust(-(-(end + len(info)) // 32) * 32 - end, b"\0") + bytes(32))


def lora_to_gguf(scripts: Path, adapter: Path, base_model: Path, target: Path) -> None:
    """Convert a PEFT LoRA directory to an F32 GGUF adapter with llama.cpp's script.

    Args:
        base_model: the Hugging Face directory that the adapter was trained on.

    Raises:
        ConversionError: the script refused it, with its last line.
    """
    arguments = [str(adapter), "--base", str(base_model), "--outfile", str(target)]
    try:
        run_script(scripts / LORA_SCRIPT, [*arguments, "--outtype", "f32"])
    except ConversionError as error:
        raise ConversionError(f"{adapter}: {error}") from None
