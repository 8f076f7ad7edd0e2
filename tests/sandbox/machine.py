"""The sandboxes of this machine, as test parameters. What it has not is skipped, with the reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from understudy.sandbox import NO_ISOLATION, Isolation, Limits, Outcome, ProgramRun, Sandbox, probe
from understudy.sandbox.jail import seccomp

QUICK = Limits(cpu_seconds=0.2, wall_seconds=20.0)


def _parameter(mechanism: Any) -> Any:
    problem = probe(mechanism).problem if mechanism != NO_ISOLATION else None if seccomp.is_known() else "no filter"
    marks = [] if problem is None else [pytest.mark.skip(reason=f"no {mechanism} on this machine: {problem}")]
    return pytest.param(mechanism, marks=marks)


ISOLATED = [_parameter("namespaces"), _parameter("bubblewrap")]
ALL = [*ISOLATED, _parameter(NO_ISOLATION)]
"""Without isolation there are still the limits, and the filter of system calls on the processors that it knows."""


isolated = pytest.mark.parametrize("isolation", ISOLATED)
always = pytest.mark.parametrize("isolation", ALL)


def run(isolation: Isolation, program: str, limits: Limits = QUICK) -> ProgramRun:
    """Run a program as a script."""
    return asyncio.run(Sandbox(limits, isolation=isolation).run(program))


def call(isolation: Isolation, program: str, *arguments: Any, limits: Limits = QUICK) -> Outcome:
    """Call the function `f` of a program."""
    return asyncio.run(Sandbox(limits, isolation=isolation).call(program, "f", [arguments])).outcomes[0]


def attempt(isolation: Isolation, body: str, *arguments: Any) -> Any:
    """Run the body of a function ``f(*args)``, and return what it returns, or the name of the exception."""
    lines = "\n".join(f"        {line}" for line in body.strip().splitlines())
    program = f"import os\ndef f(*args):\n    try:\n{lines}\n    except BaseException as error:\n"
    outcome = call(isolation, program + "        return type(error).__name__", *arguments)
    assert outcome.reason == "ok", outcome
    return outcome.value
