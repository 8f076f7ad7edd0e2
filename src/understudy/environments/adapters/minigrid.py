"""MiniGrid's and BabyAI's grid worlds (https://minigrid.farama.org), read as text and acted in by names of actions.

The agent reads what it would see: the part of the world that lies before it, as a map that turns with it and a list of
the things on the map. BabyAI's own bot is the expert where there are instructions for it to follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from understudy.environments.base import Expert, ExpertStuck, Observation
from understudy.environments.frame import says, user
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .foreign import needed, to_json
from .gymnasium import GymnasiumEnvironment

SYMBOLS = {
    "unseen": "?",
    "empty": ".",
    "floor": ".",
    "wall": "#",
    "door": "D",
    "open door": "/",
    "locked door": "L",
    "key": "k",
    "ball": "o",
    "box": "b",
    "goal": "G",
    "lava": "~",
}
"""What stands for each kind of cell on the map."""

AGENT_SYMBOL = "^"

UNLISTED = ("unseen", "empty", "floor", "wall", "lava")
"""Kinds of cells that only the map shows."""

MAX_SEARCHES = 100
"""So many searches for one action mean that the bot goes round in a circle; what it does otherwise takes up to ten."""


class MiniGridEnvironment(GymnasiumEnvironment):
    """One agent in a world of MiniGrid or BabyAI.

    The arguments are those of `GymnasiumEnvironment`, with these differences: actions are called by MiniGrid's own
    names, ``left``, ``right``, ``forward``, ``pickup``, ``drop``, ``toggle`` and ``done``; without `success_reward` an
    episode is a success when there is a reward, because MiniGrid rewards nothing else; and worlds have limits of their
    own, so that `max_steps` need not be given.

    Raises:
        ConfigError: there is no such world, or it is none of MiniGrid's.
        MissingDependency: minigrid is not installed.
    """

    default_max_steps: ClassVar[int] = 10_000

    _bot: Any = None
    _advice: Any = None
    _is_advised = False

    def expert(self, agent: str) -> Expert:
        """Return what asks BabyAI's bot, which follows the episode from its start and takes note of others' actions.

        Raises:
            ConfigError: the world has no instructions that the bot could follow.
        """
        levels = needed("minigrid.envs.babyai.core.roomgrid_level", "minigrid")
        if not isinstance(self._gym.unwrapped, levels.RoomGridLevel):
            raise ConfigError(
                f"{self._gym.spec.id} has no expert: BabyAI's bot plays BabyAI's levels; use another policy"
            )
        self._is_advised = True
        return self._decide

    def _decide(self, observation: Observation) -> Message:
        if self._bot is None:
            self._ask_bot(None)
        if self._advice is None:
            raise ExpertStuck("BabyAI's bot knows no way on from here")
        return says((self._actions or ())[int(self._advice)])

    def _made(self, id: str, arguments: Mapping[str, Any]) -> Any:
        needed("minigrid", "minigrid")
        levels: Any = needed("minigrid.envs.babyai.core.roomgrid_level", "minigrid")
        levels.print = _say_nothing
        made = super()._made(id, arguments)
        grid = needed("minigrid.minigrid_env", "minigrid")
        if not isinstance(made.unwrapped, grid.MiniGridEnv):
            raise ConfigError(f"{id} is no world of MiniGrid; play it as environment.name: gymnasium")
        return made

    def _known_names(self, id: str) -> tuple[str, ...] | None:
        return tuple(action.name for action in self._gym.unwrapped.actions)[: self._gym.action_space.n]

    def _instructions_for(self, names: Sequence[str] | None) -> str:
        legend = {kind: sign for kind, sign in SYMBOLS.items() if kind not in ("floor", "empty")} | {"free": "."}
        signs = ", ".join(f"{sign} {kind}" for kind, sign in legend.items())
        return (
            f"Fulfil the mission: write one of {', '.join(names or ())} and nothing else. Things are picked up from, "
            "dropped on and toggled (doors, boxes) on the cell ahead of you, which you have to face. The map shows "
            f"what you see: you are {AGENT_SYMBOL} at the bottom and look up; {signs}."
        )

    def _begin(self, seed: int) -> tuple[Any, dict[str, Any]]:
        begun = super()._begin(seed)
        self._bot = self._advice = None
        if self._is_advised:
            self._ask_bot(None)
        return begun

    def _take(self, action: Any) -> tuple[Any, ...]:
        result = super()._take(action)
        if self._is_advised and not result[2]:
            self._ask_bot(action)
        return result

    def _ask_bot(self, taken: Any) -> None:
        """Let the bot see the world and the action that was taken; what it advises is kept, and None where it is lost.

        It keeps a plan and what it has seen, so it has to be asked once after each action. Where others have led it
        astray, a new one plans from what it sees.
        """
        bots = needed("minigrid.utils.baby_ai_bot", "minigrid")
        for bot in (self._bot, None):
            try:
                self._bot = bot or _bounded(bots.BabyAIBot(self._gym))
                self._bot.bfs_counter = 0
                self._advice = self._bot.replan(None if bot is None else taken)
                return
            except Exception:  # a bot that is lost fails in many ways, and each of them says that it is
                self._bot = self._advice = None

    def _observation(self, given: Any, info: Mapping[str, Any]) -> Observation:
        text = view_text(given["image"])
        if self._num_steps == 0:
            text = f"mission: {given['mission']}\n{text}"
        noted: dict[str, JSON] = {"observation": to_json(given)}
        return Observation((user(text),), legal_actions=self._actions, info=noted)

    def _success(self, info: Mapping[str, Any]) -> bool | None:
        return self._total > 0 if self._success_reward is None else super()._success(info)


class _Lost(Exception):
    """The bot goes round in a circle."""


def view_text(image: Any) -> str:
    """Return a view as text: a map, then what the agent carries, then the things that it sees, the nearest first.

    Args:
        image: MiniGrid's encoding of the view (W, H, 3): kind, colour and state of each cell, column by column, from
            the farthest row to the agent's own, where the agent stands in the middle.
    """
    constants = needed("minigrid.core.constants", "minigrid")
    states = {number: state for state, number in constants.STATE_TO_IDX.items()}
    width, height = image.shape[:2]
    middle, last = width // 2, height - 1
    rows, things, carried = [], [], "nothing"
    for y in range(height):
        row = ""
        for x in range(width):
            kind, colour, state = (int(number) for number in image[x, y])
            name = constants.IDX_TO_OBJECT[kind]
            full_name = f"{states[state]} {name}" if name == "door" else name
            thing = f"{constants.IDX_TO_COLOR[colour]} {name}"
            if (x, y) == (middle, last):
                row += AGENT_SYMBOL
                carried = carried if name == "empty" else thing
                continue
            row += SYMBOLS.get(full_name) or SYMBOLS[name]
            if name not in UNLISTED:
                described = f"{states[state]} {thing}" if name == "door" else thing
                ahead, aside = last - y, x - middle
                things.append((ahead + abs(aside), aside, f"{described}, {_place(ahead, aside)}"))
        rows.append(row)
    while set(rows[0]) == {SYMBOLS["unseen"]}:
        rows.pop(0)
    seen = "; ".join(text for _, _, text in sorted(things)) or "nothing"
    return "\n".join([*rows, f"you carry: {carried}", f"you see: {seen}"])


def _place(ahead: int, aside: int) -> str:
    side = "left" if aside < 0 else "right"
    return " and ".join([f"{ahead} ahead"] * bool(ahead) + [f"{abs(aside)} {side}"] * bool(aside))


def _bounded(bot: Any) -> Any:
    """Keep a bot from looking for a way for ever, as it does in some states of some levels."""
    search = bot._breadth_first_search

    def bounded(*arguments: Any, **others: Any) -> Any:
        if bot.bfs_counter >= MAX_SEARCHES:
            raise _Lost
        return search(*arguments, **others)

    bot._breadth_first_search = bounded
    return bot


def _say_nothing(*arguments: Any) -> None:
    """Stand in for `print` where BabyAI tells the terminal that it draws a mission again."""
