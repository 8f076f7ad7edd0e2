"""Inside the program's own process: run its text, call its function, and answer.

Everything here is in the program's hands once its text runs: it can replace what this module uses, and write what it
likes into the answers. So an answer says only what the function returned. What it should have returned is never in
this process, and whether it is right is decided elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
import types
from typing import Any, NoReturn

NAME = "<program>"
MAX_MESSAGE = 500
MAX_DEPTH = 100

PLAIN = (type(None), bool, int, float, str)


def run(asked: dict[str, Any], scratch: str, results: int) -> NoReturn:
    """Run the program of a request, and answer: one line for each case, and one for the end.

    Args:
        asked: ``program``, ``nonce``; ``function`` (None where none is to be called) and ``cases``, lists of arguments.
        scratch: the program's folder.
        results: descriptor for the answers.
    """
    os.environ.clear()
    os.environ["HOME"] = scratch
    sys.argv = ["program"]
    random.seed(0)  # what a program draws does not differ from one jail to the next
    leave, is_fine = os._exit, False
    try:
        is_fine = _run(asked, results)
    finally:  # a program that has replaced what is used here must not get out into the code that forked it
        leave(0 if is_fine else 1)


def _run(asked: dict[str, Any], results: int) -> bool:
    function, prefix = asked["function"], asked["nonce"] + " "
    module = types.ModuleType("__main__" if function is None else "program")
    sys.modules[module.__name__] = module
    problem = None
    try:
        exec(compile(asked["program"], NAME, "exec"), module.__dict__)
    except BaseException as error:
        problem = _problem(error)
    if problem is None and function is not None and function not in module.__dict__:
        problem = {"error": f"it defines no function {function}", "kind": "error"}
    if problem is None:
        for i, arguments in enumerate(asked["cases"]):
            _write(results, prefix + _answer(i, module.__dict__[function], arguments))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _write(results, prefix + json.dumps({"end": problem or {}}))
    return problem is None


def _answer(case: int, called: Any, arguments: list[Any]) -> str:
    """Call the function, and return what came of it as JSON."""
    try:
        value = called(*arguments)
        strange = _strange(value, MAX_DEPTH)
        if strange is None:
            return json.dumps({"case": case, "value": value})
        problem = {"error": f"it returned {strange}, which is no plain data", "kind": "error"}
    except BaseException as error:
        problem = _problem(error)
    return json.dumps({"case": case} | problem)


def _write(descriptor: int, line: str) -> None:
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _strange(value: Any, depth: int) -> str | None:
    """Say what in a value is not plain data, which is what JSON has; None where all of it is.

    Types are taken exactly: what only behaves like a number is not a number.
    """
    if depth == 0:
        return "something too deep"
    if type(value) in PLAIN:
        return None
    if type(value) is list:
        return next(filter(None, (_strange(item, depth - 1) for item in value)), None)
    if type(value) is dict:
        odd_keys = (f"a dict with a key of type {type(key).__name__}" for key in value if type(key) is not str)
        return next(odd_keys, None) or next(filter(None, (_strange(item, depth - 1) for item in value.values())), None)
    return f"a value of type {type(value).__name__}"


def _problem(error: BaseException) -> dict[str, Any]:
    """Return an exception as data."""
    name = type(error).__name__
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # the class is the program's
        text = ""
    return {
        "error": f"{name}: {text}"[:MAX_MESSAGE] if text else name,
        "line": _line(error),
        "kind": "memory" if isinstance(error, MemoryError) else "error",
    }


def _line(error: BaseException) -> int | None:
    """Return the line of the program where it happened."""
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == NAME]
    return lines[-1] if lines else None
