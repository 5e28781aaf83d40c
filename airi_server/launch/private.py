"""A directory and small files that only their owner may read, also where they were there before."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_ELSEWHERE: Final = "Choose another place with --data."
_LEAST_SPACE: Final = 100 << 20
"""What a new cluster takes, and some more to work with."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Unusable(RuntimeError):
    """Nothing can be kept in this directory; the message is a line for whoever named it."""


class NotPrivate(Unusable):
    """What should be private to us is somebody else's, who could open it again at any time."""


def directory(path: Path) -> Path:
    """Make a directory, close it and the files in it to others, and return its absolute path.

    Raises:
        NotPrivate: It is somebody else's, and we are not root.
        Unusable: It is no directory, or cannot be made or written to.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as fault:
        raise Unusable(_cannot_be_made(path, fault)) from None
    _warn_of_owner(path)
    if close(path):
        _warn(f"{path} was open to others and is private now. Whoever uses this machine may have "
              "copied the secrets in it.")  # fmt: skip
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Unusable(f"--data {path} may not be written to: Permission denied. {_ELSEWHERE}")
    for entry in path.iterdir():
        # A link leads elsewhere, and directories belong to the programs that made them.
        if entry.is_file() and not entry.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a draft that has become a file
                close(entry)
    return path


def check_space(path: Path) -> None:
    """See that a cluster has room.

    Raises:
        Unusable: The disk is full, or nearly.
    """
    free = shutil.disk_usage(path).free
    if free < _LEAST_SPACE:
        raise Unusable(
            f"--data {path} has {free >> 20} MB of free space, and a start needs "
            f"{_LEAST_SPACE >> 20} MB. Make room there, or choose another place with --data."
        )


def read(path: Path) -> dict[str, str]:
    """Return the file's content; a missing or damaged file is an empty one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(value) for name, value in content.items()}


def write(path: Path, content: Mapping[str, str]) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step with a text."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    # The mode is given at creation: a chmod afterwards would leave a moment to read it in.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def close(path: Path) -> bool:
    """Take all rights from everybody but the owner; return whether others had any.

    Raises:
        NotPrivate: We are not who may.
    """
    found = path.stat()
    if found.st_uid != os.geteuid() != 0:
        raise NotPrivate(_belongs(path, found.st_uid) + " Give it to yourself (chown), or choose "
                         "another place with --data.")  # fmt: skip
    mode = stat.S_IMODE(found.st_mode)
    if not mode & _OTHERS:
        return False
    path.chmod(mode & ~_OTHERS)
    if path.stat().st_mode & _OTHERS:
        _warn(f"{path} cannot be made private: its file system keeps no rights. Whoever uses this "
              "machine can read the secrets in it; choose another place with --data.")  # fmt: skip
        return False
    return True


def _warn_of_owner(path: Path) -> None:
    """As root go on, because a mounted directory is often somebody's, but say so."""
    owner = path.stat().st_uid
    if os.geteuid() == 0 != owner:
        _warn(_belongs(path, owner))


def _cannot_be_made(path: Path, fault: OSError) -> str:
    if isinstance(fault, FileExistsError | NotADirectoryError):
        file = next(each for each in (path, *path.parents) if each.exists())
        return f"--data {path}: {file} is no directory. {_ELSEWHERE}"
    return f"--data {path} cannot be made: {fault.strerror}. {_ELSEWHERE}"


def _belongs(path: Path, owner: int) -> str:
    return f"{path} belongs to user {owner}, who can read the secrets in it."


def _warn(sentence: str) -> None:
    print(f"./run: {sentence}", file=sys.stderr, flush=True)
