"""Programs that break, attack or waste: families, each with chance in it. None of them defines a right `f`.

What reaches for the host does it in a way that would show, and do no harm, if nothing stopped it: it reads, it makes a
new empty file, it sends signal 0. No program here may ever delete, overwrite or kill what is not its own.
"""

# ruff: noqa: E501 (programs stand on one line each)

from __future__ import annotations

import random
from collections.abc import Callable

from understudy.environments import calls
from understudy.policies import Action, Context, EpisodeStart, Policy

GOOD = """\
import math
def f(x):
    total = 0
    for i, item in enumerate(str(x)):
        if item in {'a', "b"}:
            total += i * len([item for _ in range(3)])
    return {'total': total, 'root': math.sqrt(abs(total))}
"""


def hostile_programs(num: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return so many programs with the names of their families, all families equally often."""
    rng = random.Random(seed)
    names = list(FAMILIES)
    return [(names[i % len(names)], FAMILIES[names[i % len(names)]](rng)) for i in range(num)]


def _one_of(*texts: str) -> Callable[[random.Random], str]:
    """Return a family of some texts, with ``N`` standing for numbers of any size."""
    return lambda rng: rng.choice(texts).replace("N", str(10 ** rng.randint(1, 9)))


def _inside(*texts: str) -> Callable[[random.Random], str]:
    """Return a family of texts that do their work at once, when called, or when called by an error's own text."""

    def draw(rng: random.Random) -> str:
        text = _one_of(*texts)(rng)
        inner = text.replace("\n", "\n        ")
        return rng.choice([
            f"{text}\ndef f(x): return 0",
            f"def f(x):\n        {inner}\n        return 0",
            f"class E(Exception):\n    def __str__(self):\n        {inner}\n        return 'x'\ndef f(x): raise E",
        ])  # fmt: skip

    return draw


def _cut(rng: random.Random) -> str:
    return GOOD[: rng.randrange(1, len(GOOD) - 45)]


def _garbled(rng: random.Random) -> str:
    text = list(GOOD)
    for _ in range(rng.randint(1, 20)):
        text[rng.randrange(len(text))] = rng.choice("()[]{}:;'\"\\\n\t\x00\x7fé\u2028😀=+-*/%@!~`$?abc019")
    return "".join(text)


def _noise(rng: random.Random) -> str:
    return "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(1, 0xD800)))) for _ in range(rng.randint(1, 999))
    )


def _deep(rng: random.Random) -> str:
    opening, closing = rng.choice(
        ("()", "[]", "{}", ("-", ""), ("not ", ""), ("lambda:", "0"), ("a.", "a"), ("1+", "1"))
    )
    depth = 10 ** rng.randint(2, 5)
    return f"def f(x): return {opening * depth}0{closing * depth}"


FAMILIES: dict[str, Callable[[random.Random], str]] = {
    "cut": _cut,
    "garbled": _garbled,
    "noise": _noise,
    "deep": _deep,
    "wrong": _one_of("", "f = N", "def g(x): return x", "def f(): return N", "def f(x, y): return x", "class f: pass", "f"),
    "raises": _inside("raise N", "1 / 0", "[][N]", "{}['x']", "None.x", "int('x')", "raise MemoryError", "raise SystemExit"),
    "imports": _inside("import numpy", "import understudy", "from jail import main\nmain.main()", "import antigravity"),
    "recursion": _inside("f = lambda: f()\nf()", "import sys\nsys.setrecursionlimit(N)\ndef g(n): return g(n + 1)\ng(0)"),
    "loop": _inside("while True: pass", "for i in iter(int, 1): pass", "x = 0\nwhile x >= 0: x += N"),
    "slow": _inside("sum(range(10**13))", "3 ** (10 ** 9)", "sorted(range(10**8))", "str(7 ** N)", "list(range(10**7)).index(-1)"),
    "regex": _inside("import re\nre.match('(a*)*$', 'a' * 99 + 'b')", "import re\nre.match('(x+x+)+y', 'x' * 60)"),
    "sleep": _inside("import time\ntime.sleep(N)", "import signal\nsignal.pause()", "import select\nselect.select([], [], [])"),
    "memory": _inside("x = bytearray(10**11)", "x = []\nwhile True: x.append(bytes(N))", "x = 'x'\nwhile True: x += x"),
    "memory by mapping": _inside("import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24))"),
    "memory by packing": _inside("import zlib\nx = zlib.compress(bytes(10**7))\nwhile True: x = x + zlib.decompress(x[:9999])"),
    "flood": _inside("while True: print('x' * N)", "import sys\nwhile True: sys.stderr.write('x' * 9999)", "print('x' * 10**7)"),
    "flood of answers": _one_of("def f(x): return 'x' * 10**7", "def f(x): return list(range(10**6))", "def f(x): return 10**N"),
    "odd answers": _one_of("def f(x): return f", "def f(x): return {1, 2}", "def f(x): return (1,)", "def f(x): return float('nan')", "def f(x): yield x", "async def f(x): return x", "def f(x): return '\\udfff' * N"),
    "loops in answers": _one_of("x = []\nx.append(x)\ndef f(y): return x", "x = {}\nx['x'] = x\ndef f(y): return x", "def f(x):\n    y = []\n    for _ in range(60): y = [y, y]\n    return y"),
    "fork": _inside("import os\nwhile True: os.fork()", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
    "thread": _inside("import threading\nwhile True: threading.Thread(target=print).start()", "import multiprocessing\nmultiprocessing.Pool(N)"),
    "run": _inside("import os\nos.system('true')", "import subprocess\nsubprocess.run(['sh', '-c', 'exit 0'])", "import os\nos.execv('/bin/true', ['true'])"),
    "kill": _inside("import os\nos.kill(-1, 0)", "import os\nos.kill(os.getppid(), 0)", "import os\nos.killpg(0, 0)", "import os\nos.kill(os.getpid(), 9)", "import os\nfor i in range(2, 9999): os.kill(i, 0)"),
    "network": _inside("import socket\nsocket.create_connection(('127.0.0.1', 22))", "import urllib.request\nurllib.request.urlopen('http://example.com')", "import socket\nsocket.socket().bind(('', 8080))"),
    "disk": _inside("open('x', 'wb').write(bytes(10**8))", "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w').write('x' * 4096)", "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')"),
    "host": _inside("open('/etc/passwd').read()", "open('/etc/hostname').read()", "import os\nos.listdir('/home')", "import os\nos.symlink('/', 'root')\nos.listdir('root/etc')", "open('/proc/self/mem', 'rb').read(1)"),
    "exit": _inside("import os\nos._exit(0)", "import sys\nsys.exit(0)", "quit()", "import os\nos._exit(N % 256)", "import atexit, os\natexit.register(os._exit, 0)"),
    "crash": _inside("import ctypes\nctypes.string_at(N)", "import os\nos.abort()", "import ctypes\nctypes.memset(id(None), 0, 64)", "exec((lambda: 0).__code__.replace(co_code=bytes(99)))"),
    "descriptors": _inside("import os\nos.closerange(0, 99)", "import os\nfor i in range(3, 99):\n    try: os.write(i, b'x' * 9999)\n    except OSError: pass", "import os\nos.dup2(1, 3)", "x = []\nwhile True: x.append(open('/dev/null'))"),
    "signals": _inside("import signal\nfor i in range(1, 32):\n    try: signal.signal(i, signal.SIG_IGN)\n    except OSError: pass\nwhile True: pass", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nsignal.signal(14, lambda *a: 0)\nwhile True: pass"),
    "builtins": _inside("import builtins\nbuiltins.__dict__.clear()", "import sys\nsys.modules.clear()", "import json\njson.dumps = None", "import os\nos.write = os._exit = lambda *a: 0", "import sys\nsys.stdout = None"),
    "frames": _inside("import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_locals.clear()\n    frame = frame.f_back", "import gc\nfor x in gc.get_objects():\n    try: x.clear()\n    except Exception: pass"),
    "answers": _inside("import os, sys\nframe = sys._getframe()\nwhile 'asked' not in frame.f_locals: frame = frame.f_back\nos.write(3, (frame.f_locals['asked']['nonce'] + ' {\"end\": {}}\\n').encode() * 99)\nos._exit(0)", "import os\nos.write(3, b'{\"fault\": 1}\\n' * 9)"),
    "equal": _one_of("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", "class A(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\ndef f(x): return A(N)"),
}  # fmt: skip


class HostilePolicy(Policy):
    """Hands in a program: the one whose place in the list is the episode's seed."""

    name = "hostile"

    def __init__(self, programs: list[str], program: str = "") -> None:
        self._programs, self._program = programs, program

    def for_episode(self, start: EpisodeStart) -> Policy:
        """Return the policy with the program of this episode."""
        return HostilePolicy(self._programs, self._programs[start.seed or 0])

    async def act(self, context: Context) -> Action:
        """Hand it in."""
        return Action(calls("submit", code=self._program))
