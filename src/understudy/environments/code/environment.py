"""The code environment: a function is to be written, tried out, and handed in."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.environments.base import Observation, Step
from understudy.environments.tasks import task_key
from understudy.environments.tool_environment import AGENT, ToolEnvironment, calls, system, user
from understudy.environments.toolbox import Toolbox
from understudy.errors import ConfigError
from understudy.sandbox import REQUIRED, Isolation, Limits, Outcome, Sandbox, is_same
from understudy.types import JSON, Message, ToolCall

from .drawing import LEVELS, NUM_EXAMPLES, Test, draw_function, draw_tests, neighbours, passes
from .functions import Function, read_function

INSTRUCTIONS = "Write a Python function f. Try it with run_tests, then submit it."

MAX_SHOWN_CHARACTERS = 120


@dataclass(slots=True)
class CodeState:
    """A function to be written.

    Args:
        function: the function.
        tests: its tests; the first `NUM_EXAMPLES` are shown.
        mistake: the program with which the expert begins, where it is to begin with a wrong one.
        outcomes: what became of the programs that the latest action ran, by tool and program.
        tested: the programs that were tried out so far.
        is_solved: the program that was handed in passes all tests.
    """

    function: Function
    tests: list[Test]
    mistake: str | None = None
    outcomes: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)
    tested: list[str] = field(default_factory=list)
    is_solved: bool = False

    @property
    def examples(self) -> list[Test]:
        """The tests that the agent is shown."""
        return self.tests[:NUM_EXAMPLES]


class Code(ToolEnvironment[CodeState]):
    """Write a function from its description.

    The agent may try a program out on the examples as often as it has turns, and hands one in once. It is a success
    when that program passes the hidden tests. Programs run in a sandbox; what they return is judged outside of it.

    Args:
        level: 1 (one line, quick to learn), 2 (two or three steps), 3 (with a branch).
        expert_mistakes: the share of tasks for which the expert begins with a program that fails, and mends it.
        isolation: how programs are isolated, see `Sandbox`.
        cpu_seconds, wall_seconds, memory_mib: what one run of a program may use, see `Limits`.
        num_tasks, task_seed, max_steps: see `ToolEnvironment`.

    Raises:
        ConfigError: the level is unknown, the share is none, a limit is none, or there is no isolation on this machine.
    """

    default_max_steps = 8

    def __init__(
        self,
        *,
        level: int = 2,
        expert_mistakes: float = 0.0,
        isolation: Isolation = REQUIRED,
        cpu_seconds: float = 1.0,
        wall_seconds: float = 10.0,
        memory_mib: float = 256,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        if not 0 <= expert_mistakes <= 1:
            raise ConfigError(f"expert_mistakes is {expert_mistakes!r}; it is a share, from 0 to 1")
        self._level = level
        self._expert_mistakes = expert_mistakes
        limits = Limits(cpu_seconds=cpu_seconds, wall_seconds=wall_seconds, memory_mib=memory_mib)
        self._sandbox = Sandbox(limits, isolation=isolation)
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)

    def make_toolbox(self) -> Toolbox:
        """Return the two tools."""
        return Toolbox(self.run_tests, self.submit)

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a function."""
        return draw_function(rng, self._level).task()

    def begin(self, task: Any) -> tuple[CodeState, tuple[Message, ...]]:
        """Describe the function and show examples."""
        function = read_function(task)
        state = CodeState(function, draw_tests(function))
        state.mistake = self._mistake(state)
        examples = [f"f({test.argument!r}) == {test.expected!r}" for test in state.examples]
        return state, (system(INSTRUCTIONS), user("\n".join([function.description(), *examples])))

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Run the programs of the agent's calls, then take its action."""
        if self._play is not None:
            self.state.outcomes = {}
            for call in actions[AGENT].tool_calls:
                await self._run(call)
        return await super().step(actions)

    def run_tests(self, code: str) -> str:
        """Run a program on the examples.

        Args:
            code: the program, which defines f
        """
        self.state.tested.append(code)
        return _feedback(self.state.examples, self.state.outcomes["run_tests", code])

    def submit(self, code: str) -> str:
        """Hand in a program. This ends the task.

        Args:
            code: the program, which defines f
        """
        num_passed = sum(map(_is_passed, self.state.tests, self.state.outcomes["submit", code]))
        self.state.is_solved = num_passed == len(self.state.tests)
        self.finish("submitted")
        return "accepted" if self.state.is_solved else f"rejected: {num_passed} of {len(self.state.tests)} tests passed"

    def on_text(self, text: str) -> str | None:
        """Remind the agent of the tools."""
        return "Please call run_tests or submit."

    def is_success(self) -> bool:
        """Say whether a program was handed in that passes all tests."""
        return self.state.is_solved

    def decide(self, observation: Observation) -> Message:
        """Try the solution out, then hand it in; begin with a mistake where the task is one of those."""
        state = self.state
        if state.mistake is not None and not state.tested:
            return calls("run_tests", code=state.mistake)
        solution = state.function.solution()
        return calls("submit" if solution in state.tested else "run_tests", code=solution)

    async def _run(self, call: ToolCall) -> None:
        """Run the program of a call, if it is one that will be taken."""
        try:
            code = call.parsed_arguments().get("code")
        except ValueError:
            return
        if call.name in ("run_tests", "submit") and isinstance(code, str):
            tests = self.state.tests if call.name == "submit" else self.state.examples
            run = await self._sandbox.call(code, "f", [[test.argument] for test in tests])
            self.state.outcomes[call.name, code] = list(run.outcomes)

    def _mistake(self, state: CodeState) -> str | None:
        """Return a program that is wrong in one place and fails an example, for the given share of the tasks."""
        rng = random.Random(f"mistake/{task_key(state.function.task())}")
        if rng.random() >= self._expert_mistakes:
            return None
        wrong = [function for function in neighbours(state.function) if not passes(function, state.examples)]
        return rng.choice(wrong).solution() if wrong else None


def _is_passed(test: Test, outcome: Outcome) -> bool:
    return outcome.reason == "ok" and is_same(outcome.value, test.expected)


def _feedback(tests: list[Test], outcomes: list[Outcome]) -> str:
    """Say how many tests passed, and what went wrong with the others."""
    failures = [(test, outcome) for test, outcome in zip(tests, outcomes, strict=True) if not _is_passed(test, outcome)]
    lines = [f"passed {len(tests) - len(failures)} of {len(tests)}"]
    messages = {outcome.message for _, outcome in failures}
    if len(failures) == len(tests) and len(messages) == 1 and "" not in messages:
        return f"{lines[0]}\n{_cut(messages.pop())}"
    for test, outcome in failures:
        got = f" is {outcome.value!r}" if outcome.reason == "ok" else f": {outcome.message}"
        wanted = f", not {test.expected!r}" if outcome.reason == "ok" else ""
        lines.append(f"f({test.argument!r}){_cut(got)}{wanted}")
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
