"""Ways to use up the machine, one test for each: processes, time, memory, disk, output.

Where it says `always`, it holds even without isolation.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

import pytest

from tests.sandbox.machine import always, attempt, call, isolated, run
from understudy.sandbox import NO_ISOLATION, Isolation, Limits

REFUSED = ("PermissionError", "OSError", "RuntimeError", "BlockingIOError", "FileNotFoundError", "TypeError")


@always
@pytest.mark.parametrize(
    "way",
    [
        "os.fork()",
        "os.forkpty()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['true'])",
        "os.execv('/proc/self/exe', ['python', '-c', '1'])",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "import ctypes; ctypes.CDLL(None, use_errno=True).syscall(57) >= 0 or os.kill(0, 'no')",
        "os.system('true') == 0 or os.kill(0, 'no')",
    ],
)
def test_no_process_or_thread_can_be_started(isolation: Isolation, way: str) -> None:
    assert attempt(isolation, f"{way}\nreturn os.getpid()") in REFUSED


def descendants() -> set[int]:
    """Return the processes that stem from this one; what else runs on the machine comes and goes."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@always
def test_a_fork_bomb_makes_no_process(isolation: Isolation) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    num_before = len(descendants())
    assert run(isolation, bomb).reason == "time_out"
    assert len(descendants()) < num_before + 20


@always
@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "sum(range(10**12))",
        "10**10**9",
        "import re\nre.match('(a+)+$', 'a' * 50 + 'b')",
        "import signal\nfor n in (2, 3, 6, 10, 14, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ],
)
def test_a_loop_ends_at_its_cpu_time(isolation: Isolation, loop: str) -> None:
    found = run(isolation, loop)
    assert (found.reason, found.message) == ("time_out", "more than 0.2 s of CPU time")
    assert 0.15 < found.cpu_seconds < 0.7


@always
@pytest.mark.parametrize(
    "sleep",
    ["import time\ntime.sleep(99)", "import signal\nsignal.pause()", "import select\nselect.select([], [], [])"],
)
def test_a_sleep_ends_at_its_wall_time(isolation: Isolation, sleep: str) -> None:
    found = run(isolation, sleep, Limits(wall_seconds=0.5))
    assert (found.reason, found.message) == ("time_out", "more than 0.5 s")
    assert 0.5 <= found.wall_seconds < 5


@always
def test_there_is_no_input_to_wait_for(isolation: Isolation) -> None:
    assert run(isolation, "input()").message == "EOFError: EOF when reading a line (line 1)"


@always
@pytest.mark.parametrize(
    "fill",
    [
        "x = bytearray(10**12)",
        "x = []\nwhile True: x.append(bytearray(10**6))",
        "x = 'x'\nwhile True: x += x",
        "import mmap\nx = []\nwhile True:\n    x.append(mmap.mmap(-1, 10**7))\n    x[-1].write(bytes(10**7))",
        "x = {}\nwhile True: x[len(x)] = bytes(1000)",
        "import os\nx = []\nwhile True:\n    x.append(os.memfd_create('x'))\n    os.write(x[-1], bytes(10**7))",
        "import array\nx = array.array('d', [0.0]) * 10**11",
    ],
)
def test_memory_cannot_be_filled(isolation: Isolation, fill: str) -> None:
    found = run(isolation, fill, Limits(cpu_seconds=3, memory_mib=128, wall_seconds=20))
    assert found.reason in ("memory", "error", "killed"), found
    assert found.memory_mib <= 128


@isolated
@pytest.mark.parametrize(
    "fill",
    [
        "open('big', 'wb').write(bytes(64 << 20))",
        "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(bytes(1 << 20))",
        "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w')",
        "n = 0\nwhile True:\n    n += 1\n    os.mkdir(str(n))",
        "os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 1 << 30)",
        "os.posix_fallocate(os.open('full', os.O_CREAT | os.O_RDWR), 0, 1 << 30)",
    ],
)
def test_the_disk_cannot_be_filled(isolation: Isolation, fill: str) -> None:
    size = "print(sum(os.stat(name).st_blocks * 512 for name in os.listdir('.')))"
    found = run(
        isolation, f"import os\ntry:\n    exec({fill!r})\nfinally:\n    {size}", Limits(cpu_seconds=2, disk_mib=2)
    )
    assert found.reason in ("error", "time_out"), found
    assert not found.output or int(found.output) <= 2 << 20


def test_without_isolation_the_folder_is_deleted_whatever_it_holds() -> None:
    """Root is not stopped by a closed folder, so for root this is only about depth."""
    deep = """
import os
print(os.getcwd(), flush=True)
os.symlink("/nowhere", "link")
open("closed", "w").close()
os.mkdir("shut", 0)
for _ in range(1200):
    os.mkdir("d")
    os.chdir("d")
"""
    folder = Path(run(NO_ISOLATION, deep, Limits(cpu_seconds=5)).output.strip())
    assert folder.name.startswith("sandbox-")
    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_without_isolation_a_file_still_has_a_limit() -> None:
    found = run(NO_ISOLATION, "open('big', 'wb').write(bytes(64 << 20))", Limits(disk_mib=1))
    assert (found.reason, "File too large" in found.message) == ("error", True)


@always
@pytest.mark.parametrize(
    "flood",
    [
        "while True: print('x' * 10000)",
        "import sys\nwhile True: sys.stderr.write('x' * 10000)",
        "import os\nwhile True: os.write(1, bytes(65536))",
        "import os\nwhile True: os.write(3, bytes(65536))",
        "import os\nwhile True:\n    for n in (1, 2, 3): os.write(n, bytes(65536))",
    ],
)
def test_a_flood_of_output_is_cut_off(isolation: Isolation, flood: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = run(isolation, flood, Limits(output_kib=16))
    assert (found.reason, found.message) == ("output_limit", "more than 16 KiB of output")
    assert len(found.output) <= 16 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@always
@pytest.mark.parametrize("value", ["'x' * 10**7", "[0] * (2 * 10**5)", "{str(i): i for i in range(10**5)}"])
def test_a_flood_of_returned_data_is_cut_off(isolation: Isolation, value: str) -> None:
    assert call(isolation, f"def f(): return {value}").reason == "output_limit"


@always
@pytest.mark.parametrize(
    "value", ["10**5000", "float('nan')", "'\\ud800'", "[[]] * 3", "-0.0", "10**400", "'\\x00\\u2028'"]
)
def test_odd_values_come_through_or_are_refused(isolation: Isolation, value: str) -> None:
    outcome = call(isolation, f"def f(): return {value}")
    if value == "10**5000":
        assert (outcome.reason, "digits" in outcome.message) == ("error", True)
    else:
        assert (outcome.reason, repr(outcome.value)) == ("ok", repr(eval(value)))
