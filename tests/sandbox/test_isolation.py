"""Ways out of the sandbox, one test for each: files, the environment, the network, other processes, rights.

Where it says `always`, it holds even without isolation, by the filter of system calls. No way out is taken further than
to see that it is open, so that a broken sandbox costs a failed test and nothing else.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.sandbox.machine import always, attempt, isolated, run
from understudy.sandbox import Isolation

ROOT = Path(__file__).resolve().parents[2]


@isolated
def test_no_file_of_the_host_can_be_read(isolation: Isolation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("only for us")
    paths = [
        *(
            str(secret),
            "/etc/passwd",
            "/etc/hostname",
            "/proc/1/environ",
            "/proc/self/environ",
            "/sys/kernel",
            "/dev/sda",
        ),
        *(str(ROOT / "pyproject.toml"), "/home", "/var/log", "/run", "/dev/shm", "/proc", "/tmp/../etc/passwd"),
        *(f"/dev/fd/{number}" for number in range(4)),
        *(f"/proc/{pid}/mem" for pid in (1, os.getpid(), os.getppid())),
    ]
    body = """
found = []
for path in args[0]:
    try:
        open(path, "rb").read(1)
        found.append(path)
    except IsADirectoryError:
        found.append(path)
    except OSError:
        pass
return found"""
    assert attempt(isolation, body, paths) == []


@isolated
def test_the_root_holds_the_interpreter_and_nothing_else(isolation: Isolation) -> None:
    body = """
import sys
files = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in args[0]]
    files += [os.path.join(folder, name) for name in names]
return files"""
    library = os.path.dirname(os.__file__)
    shown = [library, os.path.dirname(library), "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/dev", "/understudy/jail"]
    assert set(attempt(isolation, body, shown)) <= {os.path.realpath(sys.executable)}
    assert "site-packages" not in str(attempt(isolation, "import sys\nreturn [sys.path, list(sys.modules)]"))
    assert attempt(isolation, "return os.listdir('.')") == []


@isolated
def test_nothing_can_be_written_outside_of_the_folder(isolation: Isolation, tmp_path: Path) -> None:
    body = """
written = []
for path in args[0]:
    for flags in (os.O_CREAT | os.O_WRONLY, os.O_WRONLY, os.O_RDWR):
        try:
            os.close(os.open(path, flags))
            written.append(path)
        except OSError:
            pass
for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/", path)):
    for folder in ("/", "/dev", os.path.dirname(os.__file__)):
        try:
            make(folder + "/new")
            written.append(folder)
        except OSError:
            pass
return written"""
    library = os.path.dirname(os.__file__)
    paths = [
        str(tmp_path / "new"),
        "/new",
        "/etc/new",
        f"{library}/os.py",
        f"{library}/new.py",
        "/dev/new",
        "/root/new",
    ]
    paths += ["/usr/lib/new", "/var/tmp/new", "/dev/shm/new", str(ROOT / "new")]
    before = Path(os.__file__).stat().st_mtime_ns
    assert attempt(isolation, body, paths) == []
    assert list(tmp_path.iterdir()) == []
    assert Path(os.__file__).stat().st_mtime_ns == before
    assert attempt(isolation, "open('mine', 'w').write('x')\nreturn open('/tmp/mine').read()") == "x"


@isolated
def test_nothing_stays_from_one_program_to_the_next(isolation: Isolation) -> None:
    run(isolation, "open('/tmp/left', 'w').write('x')\nimport sys, json\njson.left = sys.left = 1")
    assert attempt(isolation, "import sys, json\nreturn [os.listdir('/tmp'), hasattr(sys, 'left')]") == [[], False]


@always
def test_no_environment_variable_comes_in(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    body = """
import ctypes
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
raw = []
while environ and environ[len(raw)]:
    raw.append(environ[len(raw)].decode())
return [sorted(os.environ), [line.split("=")[0] for line in raw]]"""
    names, raw = attempt(isolation, body)
    assert names == ["HOME"]
    assert set(raw) <= {"HOME", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}


@isolated
def test_the_environment_of_no_process_can_be_read(isolation: Isolation) -> None:
    assert attempt(isolation, "return os.listdir('/proc')") == "FileNotFoundError"


@always
def test_there_is_no_network(isolation: Isolation) -> None:
    came = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        port = server.getsockname()[1]
        thread = threading.Thread(target=lambda: came.append(_accept(server)))
        thread.start()
        body = """
import socket, ctypes, urllib.request
tries = [
    lambda: socket.create_connection(("127.0.0.1", args[0]), timeout=1),
    lambda: socket.create_connection(("1.1.1.1", 53), timeout=1),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    lambda: socket.getaddrinfo("example.com", 80),
    lambda: urllib.request.urlopen(f"http://127.0.0.1:{args[0]}", timeout=1),
    lambda: ctypes.CDLL(None).socket(2, 1, 0) >= 0 or os.stat("/nowhere"),
]
for i, attempt in enumerate(tries):
    try:
        attempt()
        return i
    except OSError:
        pass
return "none" """
        assert attempt(isolation, body, port) == "none"
        thread.join()
    assert came == [False]


def _accept(server: socket.socket) -> bool:
    try:
        server.accept()
    except TimeoutError:
        return False
    return True


@always
def test_no_other_process_can_be_signalled_or_slowed(isolation: Isolation) -> None:
    body = """
import ctypes, signal, resource
call = ctypes.CDLL(None, use_errno=True).syscall
done = []
for pid in (0, -1, os.getppid(), args[0], args[1], 1):
    if pid == os.getpid():
        continue
    for name, way in (
        ("kill", lambda: os.kill(pid, 0)),
        ("killpg", lambda: os.killpg(abs(pid), 0)),
        ("tgkill", lambda: call(234, pid, pid, 0) == 0 or os.stat("/nowhere")),
        ("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0)),
        ("ptrace", lambda: call(101, 0x4206, pid, 0, 0) == 0 or os.stat("/nowhere")),
        ("nice", lambda: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))),
        ("affinity", lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid))),
        ("limit", lambda: pid > 1 and resource.prlimit(pid, resource.RLIMIT_CPU) or os.stat("/nowhere")),
        ("queue", lambda: call(129, pid, 0, bytes(128)) == 0 or os.stat("/nowhere")),
    ):
        try:
            way()
            done.append([name, pid])
        except OSError:
            pass
return done"""
    assert attempt(isolation, body, os.getpid(), os.getppid()) == []


@isolated
def test_the_program_has_no_process_to_see(isolation: Isolation) -> None:
    assert attempt(isolation, "return os.getpid() < 10 and os.getppid() < 10")


@isolated
def test_links_lead_nowhere(isolation: Isolation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("only for us")
    body = """
found = []
for i, target in enumerate(args[0]):
    for link in (os.symlink, os.link):
        try:
            link(target, f"link{i}")
            with open(f"link{i}", "r+") as file:
                found.append([target, file.read()])
        except OSError:
            pass
for path in ("/proc/self/root", "/proc/1/cwd", "/dev/../..", "../../../../.."):
    try:
        os.chdir(path)
        found += [name for name in os.listdir(".") if name in ("etc", "home", "proc", "var")]
    except OSError:
        pass
return found"""
    assert attempt(isolation, body, [str(secret), "/etc/passwd", "../etc/passwd", "/proc/self/root/etc/passwd"]) == []
    assert secret.read_text() == "only for us"


@isolated
def test_no_right_can_be_won_back(isolation: Isolation) -> None:
    body = """
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
tries = [
    lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chroot("/tmp"), lambda: os.chown("/tmp", 0, 0),
    lambda: call(272, 0x10000000) == 0 or os.stat("/nowhere"),
    lambda: call(165, b"", b"/tmp", b"no such system", 0, 0) == -1 and ctypes.get_errno() == 1 and os.stat("/nowhere"),
    lambda: call(425, 8, bytes(120)) >= 0 or os.stat("/nowhere"),
    lambda: call(321, 0, bytes(120), 120) >= 0 or os.stat("/nowhere"),
    lambda: os.mknod("disk", 0o60666, os.makedev(254, 0)),
]
done = []
for i, attempt in enumerate(tries):
    try:
        attempt()
        done.append(i)
    except OSError:
        pass
return done"""
    done = attempt(isolation, body)
    assert [i for i in done if i != 0] == []
    assert run(isolation, "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))").reason == "error"
