"""scripts: what is unpacked of an archive, and how llama.cpp's scripts are run."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from edge_eft.convert import ConversionError, scripts
from edge_eft.convert.scripts import run_script, unpack_scripts


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


def test_an_archive_without_scripts_or_damaged_is_refused(tmp_path):
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


def test_a_checkout_without_scripts_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"not a llama\.cpp checkout"):
        scripts.find_scripts(tmp_path)


def test_a_failing_script_is_its_last_line(tmp_path):
    """As it came: what a terminal is shown of it is filtered there."""
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.stderr.write('talk\\n'); sys.exit('no \\x1b[31mgood\\n\\n')")
    with pytest.raises(ConversionError, match=r"^fails\.py failed: no \x1b\[31mgood$"):
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


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "cache", "~nobody-here/cache"):
        monkeypatch.setenv("EDGE_EFT_CACHE", str(place))
        with pytest.raises(ConversionError, match=r"cannot be kept \(.*\); EDGE_EFT_CACHE names"):
            scripts.find_scripts(None)
