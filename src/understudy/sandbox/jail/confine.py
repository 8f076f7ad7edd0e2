"""The jail's own isolation: a root with nothing in it but the interpreter, no network, no view of other processes."""

from __future__ import annotations

import os
import socket

from . import kernel

SCRATCH = "/tmp"
"""A program's own folder: the only place where it can write, and where it starts."""

DEVICES = ("null", "zero", "random", "urandom")

NOBODY = 65534
INNER_ID = 1000
"""The ids of programs: outside of the jail where it was started by root, and else inside."""

MAX_INODES = 1024


def enter() -> None:
    """Leave the host: new namespaces, and a new root that cannot be written to.

    Root uses its own right to do so, and programs are run as nobody. All others make a user namespace first.

    Raises:
        OSError: the kernel does not allow it; the text names the call.
    """
    own = kernel.NEW_MOUNTS | kernel.NEW_NETWORK | kernel.NEW_IPC | kernel.NEW_HOSTNAME
    try:
        kernel.unshare(own)
    except PermissionError:
        uid, gid = os.getuid(), os.getgid()
        kernel.unshare(own | kernel.NEW_USERS)
        _write_map("setgroups", "deny")
        _write_map("uid_map", f"{INNER_ID} {uid} 1")
        _write_map("gid_map", f"{INNER_ID} {gid} 1")
    kernel.set_hostname("sandbox")
    folders = [*_libraries(), os.path.dirname(os.__file__)]
    _enter_new_root(folders)
    _check({path.split("/")[1] for path in (*folders, SCRATCH, "/dev")})


def enter_scratch(num_bytes: int) -> None:
    """Give one program a root of its own, in which an empty, small folder in memory is its scratch folder."""
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_PIDS | kernel.NEW_IPC)
    flags = kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXECUTION
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={num_bytes},nr_inodes={MAX_INODES},mode=1777")


def become_nobody() -> None:
    """Give up root's ids, where this process has them."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _write_map(name: str, text: str) -> None:
    try:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    except OSError as error:
        raise OSError(error.errno, f"{name} of the new user namespace: {error.strerror}") from error


def _libraries() -> list[str]:
    """Return the folders of the shared libraries that this interpreter has loaded."""
    inside = os.path.dirname(os.__file__)
    with open("/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if ".so" in line}
    return sorted({os.path.dirname(path) for path in paths if not path.startswith(inside)})


def _enter_new_root(folders: list[str]) -> None:
    """Bind folders into an empty root at their own paths, and enter it. Packages of the host are left out."""
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    sources = {path: os.open(path, os.O_PATH) for path in [*folders, *(f"/dev/{name}" for name in DEVICES)]}
    root = SCRATCH  # any folder that exists; what it held is out of sight from here on
    kernel.mount("tmpfs", root, "tmpfs", kernel.NO_SETUID, "mode=755,size=1m")
    for path in folders:
        os.makedirs(root + path, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{sources[path]}", root + path, None, kernel.BIND | kernel.RECURSIVE)
    packages = root + os.path.join(os.path.dirname(os.__file__), "site-packages")
    if os.path.isdir(packages):
        kernel.mount("tmpfs", packages, "tmpfs", kernel.NO_SETUID, "mode=755,size=4k")
    os.makedirs(root + SCRATCH)
    os.mkdir(f"{root}/dev")
    for name in DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        kernel.mount(f"/proc/self/fd/{sources[f'/dev/{name}']}", f"{root}/dev/{name}", None, kernel.BIND)
    for descriptor in sources.values():
        os.close(descriptor)
    kernel.make_read_only(root)
    kernel.enter_root(root)


def _check(expected: set[str]) -> None:
    """Look around from inside, because what counts is what is, and not what the calls returned.

    Raises:
        OSError: the jail is not what it has to be.
    """
    if strange := set(os.listdir("/")) - expected:
        raise OSError(f"the root still holds {', '.join(sorted(strange))}")
    if len(socket.if_nameindex()) > 1:
        raise OSError("there is still a network")
    for folder in ("/", SCRATCH, os.path.dirname(os.__file__)):
        if os.access(folder, os.W_OK):
            raise OSError(f"{folder} can be written to")
