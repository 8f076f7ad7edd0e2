"""The sandbox as its callers see it: what comes back, many at once, and what is refused."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sandbox.machine import always, call, isolated, run
from understudy.errors import ConfigError, SandboxError
from understudy.sandbox import (
    NO_ISOLATION,
    Isolation,
    Limits,
    Probe,
    ProgramRun,
    Sandbox,
    available_isolation,
    is_same,
    isolation,
)
from understudy.sandbox.jail import seccomp
from understudy.sandbox.sandbox import MAX_CONCURRENT

here = pytest.mark.skipif(available_isolation() is None, reason="this machine isolates no processes: see `probe`")


@always
def test_a_function_is_called_with_every_case(isolation: Isolation) -> None:
    sandbox = Sandbox(isolation=isolation)
    found = asyncio.run(sandbox.call("def f(x, y): return {'sum': x + y, 'both': [x, y]}", "f", [[1, 2], ["a", "b"]]))
    assert (found.reason, found.message, found.output) == ("ok", "", "")
    assert [outcome.value for outcome in found.outcomes] == [
        {"sum": 3, "both": [1, 2]},
        {"sum": "ab", "both": ["a", "b"]},
    ]
    assert found.cpu_seconds > 0
    assert 1 < found.memory_mib < 100


@always
def test_output_and_failures_come_back_as_data(isolation: Isolation) -> None:
    found = run(isolation, "import sys\nprint('äöü', end='')\nsys.stderr.write('!')\nx = 1 / 0\n")
    assert (found.reason, found.output) == ("error", "äöü!")
    assert found.message == "ZeroDivisionError: division by zero (line 4)"


@always
@pytest.mark.parametrize(
    ("program", "reason", "message"),
    [
        ("def f(x): return x[3]", "error", "TypeError: 'int' object is not subscriptable (line 1)"),
        ("def f(x)\n  return 1", "error", "SyntaxError: expected ':' (line 1)"),
        ("def g(x): return 1", "error", "it defines no function f"),
        ("f = 3", "error", "TypeError: 'int' object is not callable"),
        ("def f(x): return {x}", "error", "it returned a value of type set, which is no plain data"),
        ("def f(x): return (x,)", "error", "it returned a value of type tuple, which is no plain data"),
        ("def f(x): return {x: x}", "error", "it returned a dict with a key of type int, which is no plain data"),
        ("y = []\ny += [y]\ndef f(x): return y", "error", "it returned something too deep, which is no plain data"),
        ("def f(x): return f(x)", "error", "RecursionError: maximum recursion depth exceeded (line 1)"),
        ("def f(x): raise SystemExit(0)", "error", "SystemExit: 0 (line 1)"),
        ("def f(x): raise ValueError(object())", "error", "ValueError: <object object at 0x...> (line 1)"),
        ("def f(x): raise ValueError('a\\nb' + chr(0xd800))", "error", "ValueError: a b? (line 1)"),
        ("def f(x): return bytearray(10**11)", "memory", "MemoryError (line 1)"),
        ("import os\ndef f(x): os._exit(3)", "error", "it left by itself, with exit code 3"),
        ("import ctypes\ndef f(x): ctypes.string_at(1)", "killed", "killed by SIGSEGV"),
        ("x = '\x00'", "error", "SyntaxError: source code string cannot contain null bytes"),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_a_reason_and_a_place(
    isolation: Isolation, program: str, reason: str, message: str
) -> None:
    outcome = call(isolation, program, 3)
    assert outcome.reason == reason
    assert outcome.message == message or sys.version_info[:2] != (3, 11)


@always
def test_cases_before_the_failing_one_keep_their_outcomes(isolation: Isolation) -> None:
    program = "def f(x):\n    while x == 2: pass\n    return x"
    sandbox = Sandbox(Limits(cpu_seconds=0.3), isolation=isolation)
    found = asyncio.run(sandbox.call(program, "f", [[1], [2], [3]]))
    assert [outcome.reason for outcome in found.outcomes] == ["ok", "time_out", "time_out"]
    assert found.outcomes[0].value == 1


@always
def test_chance_and_the_order_of_sets_are_the_same_in_every_jail(isolation: Isolation) -> None:
    program = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd'}), hash('x')]"
    first = call(isolation, program).value
    Sandbox(isolation=isolation)._jail.close()
    assert call(isolation, program).value == first


@always
def test_many_run_at_once_but_not_too_many(isolation: Isolation) -> None:
    program = (
        "import time\ndef f():\n    start = time.monotonic()\n    time.sleep(0.1)\n    return [start, time.monotonic()]"
    )
    sandbox = Sandbox(isolation=isolation)

    async def all_of_them() -> list[list[float]]:
        runs = await asyncio.gather(*(sandbox.call(program, "f", [[]]) for _ in range(2 * MAX_CONCURRENT)))
        return [found.outcomes[0].value for found in runs]

    spans = asyncio.run(all_of_them())
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert 1 < max(at_once) <= MAX_CONCURRENT


@always
def test_nothing_leaks(isolation: Isolation) -> None:
    run(isolation, "")
    before = len(os.listdir("/proc/self/fd"))
    for program in ("", "1/0", "while True: print(1)", "import os\nos._exit(0)"):
        run(isolation, program)
    assert len(os.listdir("/proc/self/fd")) == before


@here
def test_a_jail_that_died_is_started_again_and_what_ran_in_it_is_a_fault() -> None:
    sandbox = Sandbox()
    if sandbox.mechanism != "namespaces":
        pytest.skip("each program has a jail of its own")

    async def kill_while_it_runs() -> None:
        under_way = asyncio.create_task(sandbox.run("import time\ntime.sleep(9)"))
        await asyncio.sleep(0.3)
        supervisors = _children(sandbox._jail._process.pid)
        for pid in (*supervisors, sandbox._jail._process.pid):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="died"):
            await under_way

    asyncio.run(kill_while_it_runs())
    assert asyncio.run(sandbox.run("")).reason == "ok"


@here
def test_a_caller_that_was_stopped_for_long_finds_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program ends long after all limits and before the caller looks again."""
    monkeypatch.setattr("understudy.sandbox.sandbox.GRACE_SECONDS", 0.0)
    sandbox = Sandbox(Limits(wall_seconds=0.2))

    async def stand_still() -> ProgramRun:
        under_way = asyncio.create_task(sandbox.run("print('fine')"))
        await asyncio.sleep(0.05)
        time.sleep(2 * sandbox.limits.total_seconds)
        return await under_way

    assert asyncio.run(stand_still()).output == "fine\n"


@here
def test_a_jail_that_was_stopped_for_long_counts_no_time() -> None:
    sandbox = Sandbox(Limits(cpu_seconds=5, wall_seconds=0.5))
    if sandbox.mechanism != "namespaces":
        pytest.skip("each program has a jail of its own")
    program = "import time\nend = time.monotonic() + 2.5\nwhile time.monotonic() < end: pass\nprint('fine')"

    async def stop_and_go() -> ProgramRun:
        under_way = asyncio.create_task(sandbox.run(program))
        await asyncio.sleep(0.3)
        supervisors = _children(sandbox._jail._process.pid)
        stopped = [*supervisors, *(child for pid in supervisors for child in _children(pid))]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in stopped if number == signal.SIGSTOP else reversed(stopped):
                os.kill(pid, number)
            await asyncio.sleep(4.0 if number == signal.SIGSTOP else 0)
        return await under_way

    assert asyncio.run(stop_and_go()).output == "fine\n"


@here
def test_a_fork_of_the_caller_may_use_the_jail_and_leaves_it_alive() -> None:
    driver = """
import asyncio, os, sys
from understudy.sandbox import Sandbox
sandbox = Sandbox()
def run(): return asyncio.run(sandbox.run("print(1)")).output
before = run(), sandbox._jail._process and sandbox._jail._process.pid
pid = os.fork()
if pid == 0:
    sys.exit(run() != "1\\n")
print(os.waitpid(pid, 0)[1], before == (run(), sandbox._jail._process and sandbox._jail._process.pid))
"""
    done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


@here
def test_a_program_that_takes_long_gives_way_and_its_waiting_does_not_count() -> None:
    sandbox = Sandbox(Limits(cpu_seconds=0.5, wall_seconds=0.4))
    if sandbox.mechanism != "namespaces":
        pytest.skip("bubblewrap does not show how long a program waits")

    async def watched() -> tuple[set[int], ProgramRun]:
        runs = [asyncio.create_task(sandbox.run("while True: pass")) for _ in range(2 * (os.cpu_count() or 1))]
        nicenesses, before = set(), dict(_processes())
        while not all(run.done() for run in runs):
            await asyncio.sleep(0.02)
            nicenesses |= {int(fields[16]) for pid, fields in _descendants() if pid not in before}
        return nicenesses, runs[0].result()

    nicenesses, run = asyncio.run(watched())
    assert nicenesses == {10, 19}  # those that watch give way too
    assert run.message in ("more than 0.5 s of CPU time", "more than 2.4 s in all")
    assert run.wall_seconds > 0.5


@isolated
@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_no_process_outlives_its_caller(isolation: Isolation, end: str) -> None:
    """Everything that the caller starts is in its session, so its session must become empty."""
    driver = f"""
import asyncio, sys
from understudy.sandbox import Sandbox
async def main():
    under_way = asyncio.create_task(Sandbox(isolation={isolation!r}).run("import time; time.sleep(60)"))
    await asyncio.sleep(0.5)
    print("running", flush=True)
    if sys.argv[1] == "cancelled":
        under_way.cancel()
        await asyncio.wait([under_way])
    else:
        await under_way
asyncio.run(main())
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", driver, end], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "running\n"
    assert end == "cancelled" or len(_session(caller.pid)) > 2
    if end == "killed":
        caller.kill()
    caller.wait(timeout=20)
    caller.stdout.close()
    deadline = time.monotonic() + 20
    while _session(caller.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _session(caller.pid) == []


def _session(session: int) -> list[int]:
    """Return the living processes of a session."""
    return [pid for pid, fields in _processes() if int(fields[3]) == session and fields[0] != "Z"]


def _children(parent: int) -> list[int]:
    return [pid for pid, fields in _processes() if int(fields[1]) == parent]


def _processes() -> list[tuple[int, list[str]]]:
    """Return all processes with the fields of their stat from the third on (proc_pid_stat(5))."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append((int(path.parent.name), path.read_text().rpartition(")")[2].split()))
        except OSError:
            continue
    return found


def _descendants() -> list[tuple[int, list[str]]]:
    """Return the processes that this one has brought forth, and theirs, as `_processes` does."""
    found = dict(_processes())

    def is_descendant(pid: int) -> bool:
        parent = int(found[pid][1]) if pid in found else 0
        return parent == os.getpid() or (parent > 0 and is_descendant(parent))

    return [(pid, fields) for pid, fields in found.items() if is_descendant(pid)]


@here
def test_the_example_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/sandbox.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(block, {})
    assert f"# {capsys.readouterr().out}" in block


@here
def test_threads_with_loops_of_their_own_share_a_jail() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: call("required", "def f(x): return x", i).value, range(12)))
    assert found == list(range(12))


def test_without_isolation_nothing_runs_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "probe", lambda mechanism: Probe(mechanism, f"no {mechanism} today"))
    with pytest.raises(ConfigError) as refused:
        Sandbox()
    for part in ("namespaces: no namespaces today", "bubblewrap: no bubblewrap today", "Mend", NO_ISOLATION):
        assert part in str(refused.value)
    assert run(NO_ISOLATION, "print(1)").output == "1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights here")
def test_a_machine_that_forbids_namespaces_is_found_out() -> None:
    """The kernel is the oracle: a process without capabilities that is still root may make no namespaces."""
    driver = (
        "from understudy.sandbox import *; print([probe(m).problem for m in ('namespaces', 'bubblewrap')]); Sandbox()"
    )
    rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    done = subprocess.run([*rights, sys.executable, "-c", driver], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "None" not in done.stdout
    assert "are not run without isolation" in done.stderr


def test_a_slip_in_a_setting_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'bubblewrap'"):
        Sandbox(isolation="bublewrap")  # type: ignore[arg-type]
    for wrong in ({"cpu_seconds": 0}, {"memory_mib": 3}, {"disk_mib": True}, {"wall_seconds": float("inf")}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Limits(**wrong)


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_the_numbers_of_system_calls_are_the_kernels(header: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    found = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", Path(header).read_text()))
    tables = seccomp.DENIED | seccomp.ONLY_ON_ITSELF | seccomp.ONLY_ON_ITSELF_OR_ZERO
    known = {name: numbers[column] for name, numbers in tables.items()}
    assert known == {name: int(found[name]) if name in found else None for name in tables}


def test_only_what_has_the_same_types_throughout_is_the_same() -> None:
    values = [1, 1.0, True, "1", None, 0, False, "", [], {}, [1], [1.0], {"a": 1}, {"a": True}, [[]], {"b": 1}]
    for i, value in enumerate(values):
        for j, other in enumerate(values):
            assert is_same(value, other) == (i == j)
    assert not is_same(float("nan"), float("nan"))
