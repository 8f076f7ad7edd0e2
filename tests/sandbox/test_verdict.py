"""Ways to feign success, each a program that cannot know the right answer. None of them may get it."""

from __future__ import annotations

import pytest

from tests.sandbox.machine import always, call
from understudy.sandbox import Isolation, is_same

SECRET = 918273645
"""What `f` should return for 7; no program can work it out."""

CHEATS = {
    "equal to everything": """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __repr__(self): return "918273645"[::1] if False else "0"
def f(x): return Any()""",
    "equal to everything, of any class": """
class Any:
    def __eq__(self, other): return True
def f(x): return Any()""",
    "other builtins": """
import builtins, operator
builtins.all = builtins.any = lambda items: True
builtins.isinstance = lambda *a: True
builtins.type = lambda x: int
operator.eq = lambda a, b: True
def f(x): return 0""",
    "exits well": "import sys\nsys.exit(0)\ndef f(x): return 0",
    "exits well, later": "import sys\ndef f(x): sys.exit(0)",
    "exits well, at once": "import os\ndef f(x): os._exit(0)",
    "exits well, hidden": "import os\ndef f(x):\n    try: raise SystemExit\n    finally: os._exit(0)",
    "at exit": "import atexit, os\natexit.register(lambda: os.write(3, b'ok'))\ndef f(x): return 0",
    "writes everywhere": """
import os
def f(x):
    for n in range(64):
        try: os.write(n, b'{"case": 0, "value": true}\\n{"end": {}}\\n')
        except OSError: pass
    os._exit(0)""",
    "answers by the nonce": """
import os, sys
frame = sys._getframe()
while 'asked' not in frame.f_locals: frame = frame.f_back
asked = frame.f_locals['asked']
for value in (True, None, 0, "*", asked):
    os.write(3, (asked['nonce'] + ' {"case": 0, "value": true}\\n').encode())
os.write(3, (asked['nonce'] + ' {"end": {}}\\n').encode())
os._exit(0)""",
    "another harness": """
import sys
harness = sys.modules['jail.program']
harness._answer = lambda *a: '{"case": 0, "value": "right", "passed": true}'
harness._strange = lambda *a: None
def f(x): return 0""",
    "another json": 'import json\njson.dumps = lambda *a, **k: \'{"case": 0, "value": 1e999}\'\ndef f(x): return 0',
    "looks in frames": """
import sys
def f(x):
    frame, seen = sys._getframe(), []
    while frame:
        seen += [v for v in frame.f_locals.values() if isinstance(v, int) and v > 10**6]
        frame = frame.f_back
    return seen[0] if seen else 0""",
    "looks everywhere": """
import gc
def f(x):
    todo, seen = list(gc.get_objects()), set()
    for thing in todo[:300000]:
        for inner in gc.get_referents(thing):
            if type(inner) is int and 9 * 10**8 < inner < 10**9: return inner
            if type(inner) is str and "91827" in inner: return inner
    return 0""",
    "looks for the tests": """
import os
def f(x):
    for folder, _, names in os.walk("/tmp"):
        for name in names:
            text = open(os.path.join(folder, name), errors="ignore").read()
            if "91827" in text: return text
    return 0""",
    "answers twice": "import os\ndef f(x):\n    return [0, 1][x > 3]",
    "a traceback of its own": "def f(x): raise type('Passed', (Exception,), {'__str__': lambda s: 'ok'})()",
    "an endless traceback": "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x): raise E",
    "an error that cannot be told": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E",
    "no exit": "import os\nos._exit = lambda *a: None\ndef f(x): return 0",
    "no end": "import os, sys\ndef f(x):\n    sys.stdout.flush = lambda: os._exit(0)\n    return 0",
    "closes everything": "import os\nos.closerange(0, 64)\ndef f(x): return 0",
    "swaps the pipes": "import os\nos.dup2(1, 3)\ndef f(x): return 0",
    "feigns a fault": 'import os\ndef f(x):\n    os.write(3, b\'{"fault": "it broke"}\\n\')\n    os._exit(1)',
}


@always
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_program_can_make_itself_right(isolation: Isolation, cheat: str) -> None:
    outcome = call(isolation, CHEATS[cheat], 7)
    assert not (outcome.reason == "ok" and is_same(outcome.value, SECRET))
