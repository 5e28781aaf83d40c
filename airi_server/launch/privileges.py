"""How PostgreSQL, which refuses root, runs when root is all there is.

Preferred is a user namespace: the process sees itself as nobody and the files stay root's.
Where namespaces are forbidden (a default Docker container), it becomes nobody for real and
keeps one capability, to reach the wheel and the data inside directories closed to others.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airi_server.launch.processes import libc

NOBODY: Final = 65534
_CLONE_NEWUSER: Final = 0x10000000
_PR_SET_KEEPCAPS: Final = 8
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAP_DAC_OVERRIDE: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522


@dataclass(frozen=True, slots=True)
class Guise:
    """Whom a child looks like: `put_on` runs in the child before it becomes the program."""

    name: str
    put_on: Callable[[], None]
    owner: int | None = None

    def own(self, directory: Path) -> None:
        """Hand a directory to whoever the child will be: the last start may have been another."""
        wanted = os.geteuid() if self.owner is None else self.owner
        if os.geteuid() != 0 or directory.stat().st_uid == wanted:
            return
        for path in (directory, *directory.rglob("*")):
            os.chown(path, wanted, wanted, follow_symlinks=False)


def for_postgres() -> Guise:
    """Pick the first guise that works here.

    Raises:
        RuntimeError: We are root and may not become anybody else.
    """
    if os.geteuid() != 0:
        return PLAIN
    for guise in (NAMESPACE, SETUID):
        if _works(guise):
            return guise
    raise RuntimeError(
        "PostgreSQL does not run as root, and this machine lets root become nobody else. "
        "Run as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )


def _works(guise: Guise) -> bool:
    try:
        return subprocess.run(["/bin/true"], preexec_fn=guise.put_on, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _keep_identity() -> None:
    """Stay who we are."""


def _enter_namespace() -> None:
    _checked(libc.unshare(_CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1", encoding="ascii")


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilitySet(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def _become_nobody() -> None:
    _checked(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kept = 1 << _CAP_DAC_OVERRIDE
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapabilitySet * 2)(_CapabilitySet(kept, kept, kept), _CapabilitySet(0, 0, 0))
    _checked(libc.capset(ctypes.byref(header), sets))
    # Only an ambient capability survives the program's start.
    _checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _checked(outcome: int) -> None:
    if outcome != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


PLAIN: Final = Guise("plain", _keep_identity)
NAMESPACE: Final = Guise("namespace", _enter_namespace)
SETUID: Final = Guise("setuid", _become_nobody, owner=NOBODY)
