"""System calls that the standard library lacks, as functions that raise `OSError`."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000

READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTION = 0x1, 0x2, 0x4, 0x8
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000

_DETACH = 2
_HERE = -100
_AT_RECURSIVE = 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 4, 22, 38
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process (for pids: its next child) into new namespaces."""
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount, bind, or change how a mount propagates."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode() or None
    )
    _checked(f"mount {target}", result)


def make_read_only(path: str) -> None:
    """Make a mount and all mounts below it read-only and deaf to set-user-id bits (Linux 5.12)."""
    attributes = struct.pack("4Q", READ_ONLY | NO_SETUID, 0, 0, 0)
    result = _libc.syscall(_MOUNT_SETATTR, _HERE, path.encode(), _AT_RECURSIVE, attributes, len(attributes))
    _checked("mount_setattr", result)


def enter_root(path: str) -> None:
    """Make a mounted folder the root, and let go of the old one."""
    os.chdir(path)
    # pivot_root(2): with "." twice the old root lies on top of the new one, from where it is taken away.
    _checked("pivot_root", _libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."))
    _checked("umount", _libc.umount2(b".", _DETACH))
    os.chdir("/")


def set_hostname(name: str) -> None:
    """Name this machine, as its namespace sees it."""
    _checked("sethostname", _libc.sethostname(name.encode(), len(name)))


def die_with_parent(signal: int) -> None:
    """Get a signal when the parent ends. Changing the user id undoes this, so it comes after."""
    _checked("prctl", _libc.prctl(_SET_DEATH_SIGNAL, ctypes.c_ulong(signal), 0, 0, 0))


def drop_capabilities() -> None:
    """Give up all capabilities, and gain none by running anything."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _checked("capset", _libc.capset(header, bytes(24)))
    _checked("prctl", _libc.prctl(_SET_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), 0, 0, 0))


def hide_memory() -> None:
    """Let no other process of this user read this one's memory, and write no core file."""
    _checked("prctl", _libc.prctl(_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0))


def install_filter(instructions: bytes) -> None:
    """Filter all system calls from now on. `instructions` are of eight bytes each (linux/filter.h)."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(buffer))
    _checked("seccomp", _libc.prctl(_SET_SECCOMP, ctypes.c_ulong(2), program, 0, 0))


def _checked(name: str, result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
