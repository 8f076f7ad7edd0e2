"""The filter of system calls: what a program has no use for is refused by the kernel.

A program here computes in one process of one thread. So it makes no processes and threads, runs no other program,
opens no sockets, signals nobody but itself, limits nobody, makes no namespaces, and keeps no memory outside its address
space, where the limit would not count it. Calls that need a capability are not listed: it has none.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

DENIED: dict[str, tuple[int | None, int | None]] = {
    # processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    # the network
    "socket": (41, 198),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # wide doors into the kernel
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
}
"""Name -> number on x86_64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h); None where there is no such call."""

ONLY_ON_ITSELF: dict[str, tuple[int, int]] = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131)}
ONLY_ON_ITSELF_OR_ZERO: dict[str, tuple[int, int]] = {"prlimit64": (302, 261)}

NEWEST = 450
"""Calls from this number on are newer than the list, and are answered as an older kernel would."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def is_known() -> bool:
    """Say whether there is a filter for this machine's processor."""
    return platform.machine() in _ARCHITECTURES


def filter_for(pid: int) -> bytes:
    """Return the filter for a process, as instructions of the classic Berkeley packet filter.

    Args:
        pid: the number of the process, as it sees it itself.

    Raises:
        KeyError: there is no filter for this machine's processor.
    """
    column, architecture = _ARCHITECTURES[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, NEWEST),
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            instructions += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for pairs, allowed in ((ONLY_ON_ITSELF, (pid,)), (ONLY_ON_ITSELF_OR_ZERO, (0, pid))):
        for pair in pairs.values():
            instructions += _only_on(pair[column], allowed)
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def _only_on(number: int, allowed: Iterable[int]) -> list[tuple[int, int, int, int]]:
    """Allow a call when its first argument, a process, is one of these."""
    tests = [(_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for pid in allowed:
        tests += [(_IF_EQUAL, 0, 1, pid), (_RETURN, 0, 0, _ALLOW)]
    tests.append((_RETURN, 0, 0, _REFUSE))
    return [(_IF_EQUAL, 0, len(tests), number), *tests]
