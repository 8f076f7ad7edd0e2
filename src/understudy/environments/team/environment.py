"""The team environment: a planner with the manual, and a solver at the machines."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.environments.base import Observation, Reward
from understudy.environments.frame import calls, says, system, user
from understudy.environments.multi_agent import MultiAgentEnvironment, TurnOrder
from understudy.environments.toolbox import Toolbox, ToolError
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .tasks import COLOURS, LEVELS, Lamps, Manual, check_task, draw_task, named_after

PLANNER, SOLVER = "planner", "solver"

PLANNER_RULES = (
    "You have the manual; your partner stands at the machines and sees the lamps. Tell your partner how to set each "
    "machine: its name, the colour of its lamp, and the number for that colour."
)
SOLVER_RULES = (
    "You stand at the machines; your partner has the manual. Tell your partner each machine and the colour of its "
    "lamp. Then set each machine as your partner says. A dial can be set once."
)


@dataclass(slots=True)
class Round:
    """One time that the lamps light up.

    `reported` is what the solver has told of the lamps, `told` what the planner has told of the settings, and `dials`
    how the machines are set.
    """

    lamps: Lamps
    reported: dict[str, str] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    dials: dict[str, int] = field(default_factory=dict)

    def wanted(self, manual: Manual) -> dict[str, int]:
        """Return how the machines should be set."""
        return {machine: manual[machine][colour] for machine, colour in self.lamps.items()}

    def looked_up(self, manual: Manual) -> dict[str, int]:
        """Return what the manual gives for what has been reported."""
        return {m: manual[m][colour] for m, colour in self.reported.items() if colour in manual[m]}


@dataclass(slots=True)
class TeamState:
    """A job under way: the manual, the rounds so far, and the lamps of those that are to come."""

    manual: Manual
    rounds: list[Round]
    to_come: list[Lamps]

    @property
    def now(self) -> Round:
        """The present round."""
        return self.rounds[-1]

    @property
    def is_done(self) -> bool:
        """True when all dials of all rounds are set as they should be."""
        return not self.to_come and all(round.dials == round.wanted(self.manual) for round in self.rounds)

    def did_part(self, agent: str) -> bool:
        """Say whether an agent has done right in every round so far, by what it could know."""
        if agent == PLANNER:
            return all(
                round.told == round.looked_up(self.manual) and round.told.keys() == round.lamps.keys()
                for round in self.rounds
            )
        return all(round.reported == round.lamps and round.dials == round.told for round in self.rounds)


class Team(MultiAgentEnvironment[TeamState]):
    """A ``planner`` who has the manual and a ``solver`` who sees and sets the machines.

    The solver says what colours the lamps have, the planner says what the manual gives for them, the solver sets the
    dials with ``set_dial(machine, value)``. When all dials are set, the next lamps light up, or the job is at its end.

    The job is done when all dials of all rounds are set as the manual says. Then both have succeeded. Otherwise an
    agent has succeeded that did its own part: a planner who told what the manual gives for the colours that were
    reported, a solver who reported the colours as they are and set the dials as was told. The reward is half for one's
    own success and half for the job.

    Args:
        level: 1 (one machine, three colours: quick to learn) to 3 (three machines, five colours, two rounds).
        turn_order: who acts when; by default ``["solver", "planner"]``.
        num_tasks, task_seed, max_steps: see `MultiAgentEnvironment`.

    Raises:
        ConfigError: the level is unknown, or the order is none.
    """

    agents = (PLANNER, SOLVER)
    default_turn_order = (SOLVER, PLANNER)
    default_max_steps = 20

    def __init__(
        self,
        *,
        level: int = 2,
        turn_order: TurnOrder | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        self.difficulty = LEVELS[level]
        super().__init__(turn_order=turn_order, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)

    def make_toolbox(self, agent: str) -> Toolbox:
        """Return the solver's dials."""
        return Toolbox(self.set_dial) if agent == SOLVER else Toolbox()

    def set_dial(self, machine: str, value: int) -> str:
        """Set the dial of a machine.

        Args:
            machine: the machine's name
            value: the number to set it to
        """
        state, now = self.state, self.state.now
        if machine not in now.lamps:
            raise ToolError(f"there is no machine {machine!r}")
        if machine in now.dials:
            raise ToolError(f"the dial of the {machine} has been set already")
        now.dials[machine] = value
        if len(now.dials) < len(now.lamps):
            return "set"
        if now.dials != now.wanted(state.manual) or not state.to_come:
            self.finish("done" if state.is_done else "failed")
            return "set"
        state.rounds.append(Round(state.to_come.pop(0)))
        return f"set. Now {_list(state.now.lamps)}"

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a manual and lamps."""
        return draw_task(rng, self.difficulty)

    def begin(self, task: Any) -> tuple[TeamState, Mapping[str, Sequence[Message]]]:
        """Give the planner the manual, and show the solver the lamps."""
        manual, lamps = check_task(task)
        pages = "\n".join(f"{machine}: {_list(settings)}" for machine, settings in manual.items())
        return TeamState(manual, [Round(lamps[0])], lamps[1:]), {
            PLANNER: [system(PLANNER_RULES), user(pages)],
            SOLVER: [system(SOLVER_RULES), user(_list(lamps[0]))],
        }

    def on_text(self, agent: str, text: str) -> None:
        """Pass on what one says to the other, and note what of it can be told."""
        now = self.state.now
        if agent == SOLVER:
            now.reported |= named_after(text, now.lamps, rf"\b({'|'.join(COLOURS)})\b")
        else:
            told = named_after(text, now.lamps, r"\b\d{1,4}\b")
            now.told |= {machine: int(value) for machine, value in told.items()}
        self.tell(PLANNER if agent == SOLVER else SOLVER, f"Your partner says: {text}")

    def is_success(self, agent: str) -> bool:
        """Say whether the job is done, or else whether the agent has done its part."""
        return self.state.is_done or self.state.did_part(agent)

    def rewards(self, is_over: bool) -> dict[str, Reward]:
        """Return half for one's own success and half for the job, at the end."""
        if not is_over:
            return {}
        rewards = {}
        for agent in self.agents:
            components = {"own": 0.5 * self.is_success(agent), "job": 0.5 * self.state.is_done}
            rewards[agent] = Reward(sum(components.values()), components)
        return rewards

    def decide(self, agent: str, observation: Observation) -> Message:
        """Report, look up, or set what has been told; ask where that is missing."""
        now = self.state.now
        if agent == PLANNER:
            settings = now.looked_up(self.state.manual)
            told = {machine: f"{now.reported[machine]} {setting}" for machine, setting in settings.items()}
            return says(_list(told) or "What colours do the lamps have?")
        for machine in now.lamps:
            if machine in now.told and machine not in now.dials:
                return calls("set_dial", machine=machine, value=now.told[machine])
        return says(_list(now.lamps))


def _list(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
