"""Which isolation this machine has: what is tried, what works, and the refusal where nothing does.

Two mechanisms, tried in this order, once in a process:

- ``namespaces``: the kernel's own, through unshare(2). The jail is started once and forks for each program, which takes
  a few milliseconds.
- ``bubblewrap``: the tool ``bwrap``, for machines that allow namespaces to it alone. It is started for each program.

Without isolation nothing runs, unless the user says `NO_ISOLATION` in as many words.
"""

from __future__ import annotations

import functools
import sys
import threading
from dataclasses import dataclass
from typing import Literal, get_args

from understudy.errors import ConfigError, SandboxError, did_you_mean

from .host import Jail, Mode

Isolation = Literal["required", "namespaces", "bubblewrap", "none_i_accept_the_risk"]

REQUIRED: Isolation = "required"
NO_ISOLATION: Isolation = "none_i_accept_the_risk"

MECHANISMS: tuple[Mode, ...] = ("namespaces", "bubblewrap")

MEND = (
    "allow user namespaces (in a container: --cap-add SYS_ADMIN, or a seccomp profile that allows unshare; on the "
    "machine: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or "
    "kernel.apparmor_restrict_unprivileged_userns), or install bubblewrap; or, only where every program that will run "
    f"is harmless, isolation={NO_ISOLATION}"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of trying a mechanism.

    Args:
        mechanism: its name.
        problem: why it cannot be used here; None where it works.
    """

    mechanism: Mode
    problem: str | None


@functools.cache
def probe(mechanism: Mode) -> Probe:
    """Try a mechanism: start a jail, which looks around from inside, and run a program in it."""
    try:
        jail(mechanism).rehearse()
    except SandboxError as error:
        return Probe(mechanism, str(error))
    return Probe(mechanism, None)


def available_isolation() -> Mode | None:
    """Return the first mechanism that works on this machine; None where there is none."""
    return next((mechanism for mechanism in MECHANISMS if probe(mechanism).problem is None), None)


def jail_for(isolation: Isolation) -> Jail:
    """Return the jail that programs run in.

    Args:
        isolation: ``required`` for the first mechanism that works, the name of one, or `NO_ISOLATION`.

    Raises:
        ConfigError: the mechanism does not work here, or none does; the text says what was tried, and the mend.
    """
    if isolation not in get_args(Isolation):
        near = did_you_mean(str(isolation), get_args(Isolation))
        raise ConfigError(f"isolation is {isolation!r}.{near} Known: {', '.join(get_args(Isolation))}")
    if not sys.platform.startswith("linux"):
        raise ConfigError(f"programs are run on Linux only, and this is {sys.platform} (mend: use a Linux container)")
    if isolation == NO_ISOLATION:
        return jail("none")
    tried = []
    for mechanism in (name for name in MECHANISMS if isolation in (REQUIRED, name)):
        found = probe(mechanism)
        if found.problem is None:
            return jail(mechanism)
        tried.append(f"{mechanism}: {found.problem}")
    said = "; ".join(tried)
    raise ConfigError(f"programs of a model are not run without isolation, and this machine gives none ({said}). "
                      f"Mend: {MEND}")  # fmt: skip


_jails: dict[Mode, Jail] = {}
_lock = threading.Lock()


def jail(mode: Mode) -> Jail:
    """Return this process's jail of a mode."""
    with _lock:
        if mode not in _jails:
            _jails[mode] = Jail(mode)
        return _jails[mode]
