"""What `./run` keeps is closed to others, also where it was open before."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from airi_server.launch import __main__, private

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = private.directory(tmp_path / "new" / "data")

    assert mode(made) == 0o700
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("was", [0o755, 0o750, 0o777, 0o701])
def test_one_that_was_there_is_closed_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], was: int
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    for name in ("secrets.json", "demo.json", "stack.json", "supervisor.log"):
        (directory / name).write_text("{}")
        (directory / name).chmod(0o644)
    directory.chmod(was)

    private.directory(directory)

    assert mode(directory) == 0o700
    assert {mode(each) for each in directory.iterdir()} == {0o600}
    said = capsys.readouterr().err
    assert said.startswith(f"./run: {directory} was open to others")
    assert said.count("\n") == 1
    private.directory(directory)
    assert capsys.readouterr().err == ""


def test_what_a_link_leads_to_and_what_is_further_down_is_left_alone(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (directory / "deeper").mkdir(parents=True, mode=0o755)
    (directory / "deeper" / "file").write_text("")
    elsewhere.write_text("")
    for path in (directory / "deeper" / "file", elsewhere):
        path.chmod(0o644)
    (directory / "link").symlink_to(elsewhere)
    (directory / "dangling").symlink_to(tmp_path / "nothing")

    private.directory(directory)

    assert mode(elsewhere) == mode(directory / "deeper" / "file") == 0o644


def test_a_directory_behind_a_link_is_closed_too(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(tmp_path / "disk")

    private.directory(tmp_path / "data")

    assert mode(tmp_path / "disk") == 0o700


def test_a_file_is_private_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("before")
    path.chmod(0o666)

    private.write_text(path, "after")

    assert (path.read_text(), mode(path)) == ("after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@root
def test_root_says_whose_a_directory_is_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    os.chown(directory, 12345, 12345)
    directory.chmod(0o755)

    private.directory(directory)

    assert mode(directory) == 0o700
    assert "belongs to user 12345" in capsys.readouterr().err


@pytest.mark.parametrize("foreign", ["data", "data/secrets.json"])
def test_nobody_but_root_uses_what_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    directory = private.directory(tmp_path / "data")
    private.write(directory / "secrets.json", {})
    ours, stat_of = os.geteuid(), Path.stat

    def seen(path: Path, **how: bool) -> os.stat_result:
        found = stat_of(path, **how)
        owner = ours if path == tmp_path / foreign else 12345
        return os.stat_result((*found[:4], owner, *found[5:10]))

    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "stat", seen)

    with pytest.raises(private.NotPrivate, match=f"{foreign} belongs to user {ours}.*chown"):
        private.directory(directory)


def test_where_rights_are_not_kept_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as on a file system of another kind

    private.directory(tmp_path)

    assert "cannot be made private" in capsys.readouterr().err


def test_what_is_no_directory_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(private.Unusable) as refused:
            private.directory(path)
        assert str(refused.value).startswith(f"--data {path}: {file} is no directory. Choose")
    with pytest.raises(private.Unusable, match=r"--data /proc/nobody cannot be made: .+ Choose"):
        private.directory(Path("/proc/nobody"))


def test_what_may_not_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _how: False)
    with pytest.raises(private.Unusable, match="may not be written to: Permission denied"):
        private.directory(tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private.check_space(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=3 << 20))
    with pytest.raises(private.Unusable, match="has 3 MB of free space, and a start needs 100 MB"):
        private.check_space(tmp_path)


@pytest.mark.parametrize("command", ["serve", "manage"])
def test_it_is_said_by_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    given = [command, "--data", str(file), *(["--port", "1"] if command == "serve" else [])]
    monkeypatch.setattr("sys.argv", ["run", *given])
    monkeypatch.setattr("airi_server.launch.serve._listening", lambda _port: socket.socket())

    with pytest.raises(SystemExit) as ended:
        __main__.main()

    assert str(ended.value).startswith(f"./run: --data {file}: {file} is no directory.")


def test_what_the_machine_refuses_later_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_arguments: list[str]) -> None:
        Path("/dev/full").write_text("more")

    monkeypatch.setitem(__main__._COMMANDS, "serve", write)
    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(SystemExit, match=r"^\./run: No space left on device\.$"):
        __main__.main()
