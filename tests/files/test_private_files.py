"""private_files: for their owner alone, whatever the umask is, and no links."""

import os
import stat

import pytest

from edge_eft.files.private_files import open_private, private_directory


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0, 0o022, 0o277], ids=oct, autouse=True)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_directories_and_files_are_the_owners_alone(tmp_path):
    place = private_directory(tmp_path / "a" / "b")
    assert (mode(place), mode(tmp_path / "a") & 0o077) == (0o700, 0)
    with open_private(place / "x", "x") as file:
        file.write(b"one")
    (place / "x").chmod(0o644)
    with open_private(place / "x", "a+") as file:
        file.write(b" two")
    assert mode(place / "x") == 0o600
    assert (place / "x").read_bytes() == b"one two"
    with pytest.raises(FileExistsError):
        open_private(place / "x", "x")


def test_an_open_directory_is_closed_to_others(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    assert mode(private_directory(tmp_path / "a")) == 0o700


@pytest.mark.timeout(10)
def test_links_and_what_is_no_file_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "dangling", "file", "file/x"):
        with pytest.raises(OSError):  # noqa: PT011
            private_directory(tmp_path / name)
    for name in ("link", "dangling", "real", "fifo"):
        for how in ("a", "a+", "x"):
            with pytest.raises(OSError):  # noqa: PT011
                open_private(tmp_path / name, how)
    assert list((tmp_path / "real").iterdir()) == []
    assert not (tmp_path / "nothing").exists()
