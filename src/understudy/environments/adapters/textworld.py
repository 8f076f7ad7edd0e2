"""TextWorld's games (https://github.com/microsoft/TextWorld): rooms, things and a quest, acted in by written commands.

Games are made by TextWorld itself, one for each seed, or are the user's files. TextWorld knows a way to win from where
the game stands, which at the start is the walkthrough of the game: that is the expert.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from understudy.environments.base import Expert, ExpertStuck, Observation, Reward, Step
from understudy.environments.frame import says, system, user
from understudy.environments.tool_environment import AGENT
from understudy.errors import ConfigError, EnvironmentFault, did_you_mean
from understudy.types import JSON, Message

from .foreign import ForeignEnvironment, Generators, in_thread, needed

INSTRUCTIONS = (
    "Play the game: write one command and nothing else, such as look, inventory, go north, open chest, "
    "take key from chest or put key on table. The command help lists the others."
)

OPTIONS = ("nb_rooms", "nb_objects", "quest_length", "quest_breadth", "nb_parallel_quests")
"""What may be said of games without a challenge; these are attributes of TextWorld's `GameOptions`."""

SUFFIXES = (".z8", ".json")

_PROMPT = re.compile(r"\n?>[^\n]*\Z")
"""The prompt and the status line with which the interpreter waits for a command."""

_BANNER = re.compile(r"\A(?:[ $\\|/_>]*\n)*")
"""The drawing with which a game opens."""


class TextWorldEnvironment(ForeignEnvironment):
    """One agent in games of TextWorld.

    The reward of an action is the points that it earns; an episode is a success when the game says that it is won.

    Args:
        games: a game's file, a folder of them, or a list of files: ``.z8`` with the ``.json`` beside it that TextWorld
            wrote, or the ``.json`` alone, from which the game is made. They are the tasks, split like all tasks. None
            for games that are made from seeds.
        challenge: which kind of games to make, such as ``tw-simple``, ``tw-cooking``, ``tw-coin_collector`` or
            ``tw-treasure_hunter``; None for TextWorld's plain ones.
        arguments: of the challenge, or of plain games (`OPTIONS`).
        instructions: what the agent is told at first; None for `INSTRUCTIONS`.
        num_tasks, task_seed: where tasks are seeds; see `ForeignEnvironment`.
        max_steps: the episode is truncated after so many commands.

    Raises:
        ConfigError: a file is no game of TextWorld, there is no such challenge, or it does not take the arguments.
        MissingDependency: textworld is not installed.
    """

    agents: tuple[str, ...] = (AGENT,)
    default_max_steps: ClassVar[int] = 100

    def __init__(
        self,
        *,
        games: Sequence[str] | str | None = None,
        challenge: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        instructions: str | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        if games is not None and (challenge is not None or arguments is not None):
            raise ConfigError("games are there already; leave challenge and arguments out, or games")
        tasks: list[JSON] | None = None if games is None else [{"game": str(path)} for path in _game_files(games)]
        super().__init__(tasks=tasks, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self._textworld = needed("textworld", "textworld")
        self._challenge = challenge
        self._settings = _settings(challenge, arguments or {})
        self._instructions = instructions or INSTRUCTIONS
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._game: Any = None
        self._state: Any = None
        self._score = 0
        self._generators = Generators(0)

    def expert(self, agent: str) -> Expert:
        """Return what follows TextWorld's way to win from where the game stands."""
        return self._decide

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start a game; making one takes about a second."""
        await self.close()
        if task is None and self._given is not None:
            task = self._given[0]
        number = self.seed_of(task, seed)
        self._generators = Generators(number)
        await in_thread(self._generators.call, partial(self._open, task, number))
        self._num_steps, self._score = 0, 0
        opening = _said(_BANNER.sub("", self._state.feedback))
        shown = Observation((system(self._instructions), user(opening)), legal_actions=self._legal_actions())
        return Step(observations={AGENT: shown}, success={AGENT: False})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Give the game a command; it answers what it does not understand itself."""
        self._count_step()
        command = " ".join(actions[AGENT].text().split())
        self._state, score, is_over = await in_thread(self._generators.call, partial(self._game.step, command))
        earned, self._score = int(score or 0) - self._score, int(score or 0)
        is_cut = self._is_cut(is_over)
        reason = "won" if self._state.won else "lost" if self._state.lost else "max_steps" if is_cut else None
        step = Step(
            observations={
                AGENT: Observation((user(_said(self._state.feedback)),), legal_actions=self._legal_actions())
            },
            rewards={AGENT: Reward(float(earned))},
            terminated=bool(is_over),
            truncated=is_cut,
            success={AGENT: bool(self._state.won)},
            stop_reason=reason,
        )
        if step.is_over:
            self._num_steps = None
        return step

    async def close(self) -> None:
        """End the game, and remove what was made for it."""
        self._num_steps = None
        if self._game is not None:
            await in_thread(self._game.close)
        if self._folder is not None:
            self._folder.cleanup()
        self._game = self._folder = None

    def _decide(self, observation: Observation) -> Message:
        commands = None if self._state is None else self._state.policy_commands
        if not commands:
            raise ExpertStuck("TextWorld knows no way to win from here")
        return says(commands[0])

    def _legal_actions(self) -> tuple[str, ...]:
        return tuple(self._state.admissible_commands or ())

    def _open(self, task: JSON, seed: int) -> None:
        """Start the game of a task; where there is only a description of it, make it first."""
        file = self._file(task, seed)
        wanted = ("feedback", "admissible_commands", "won", "lost", "score", "max_score", "policy_commands")
        self._game = self._textworld.start(str(file), self._textworld.EnvInfos(**dict.fromkeys(wanted, True)))
        self._game.seed(seed % 2**16)
        self._state = self._game.reset()

    def _file(self, task: JSON, seed: int) -> Path:
        if self._given is None:
            return self._compiled(self._made(seed))
        if not isinstance(task, dict) or not isinstance(task.get("game"), str):
            raise EnvironmentFault(f"this is no task of {type(self).__name__}: {task!r:.200}")
        path = Path(task["game"])
        return path if path.suffix == ".z8" else self._compiled(self._textworld.Game.load(str(path)))

    def _made(self, seed: int) -> Any:
        """Return the game of a seed.

        Raises:
            EnvironmentFault: TextWorld finds none, such as a quest that is too long for so few rooms.
        """
        options = self._textworld.GameOptions()
        options.seeds = seed

        try:
            if self._challenge is not None:
                _, make, _ = _challenges()[self._challenge]
                return make(self._settings, options)
            for name, value in self._settings.items():
                setattr(options, name, value)
            return self._textworld.generator.make_game(options)
        except Exception as error:  # its generator has exceptions of many kinds, and they are all this
            raise EnvironmentFault(f"textworld finds no such game: {type(error).__name__}: {error}") from error

    def _compiled(self, game: Any) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="textworld-")
        options = self._textworld.GameOptions()
        options.path = str(Path(self._folder.name) / "game.z8")
        return Path(self._textworld.generator.compile_game(game, options))


def _game_files(games: Sequence[str] | str) -> list[Path]:
    """Return the files of games; of a game's two files the one that can be played.

    Raises:
        ConfigError: a file is not there, or is no game of TextWorld.
    """
    paths = [Path(games)] if isinstance(games, str) else [Path(one) for one in games]
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(one for one in path.glob("*") if one.suffix in SUFFIXES) if path.is_dir() else [path]
        for file in inside:
            description = file.with_suffix(".json")
            if file.suffix not in SUFFIXES or not file.is_file():
                raise ConfigError(f"games: {file} is no game; give files that end in {' or '.join(SUFFIXES)}")
            if not description.is_file():
                raise ConfigError(f"games: {file} was not made by TextWorld, for {description.name} is not beside it")
            compiled = file.with_suffix(".z8")
            found[compiled if compiled.is_file() else file] = None
    if not found:
        raise ConfigError(f"games: there are none in {games}")
    return list(found)


def _settings(challenge: str | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a challenge, its defaults included, or the options of plain games.

    Raises:
        ConfigError: there is no such challenge, or it does not take the arguments.
    """
    if challenge is None:
        for name, value in arguments.items():
            if name not in OPTIONS:
                raise ConfigError(f"arguments: textworld has no {name!r}.{did_you_mean(name, OPTIONS)} Known: "
                                  f"{', '.join(OPTIONS)}")  # fmt: skip
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"arguments.{name} is {value!r}; give a whole number from 1 up")
        return dict(arguments)
    known = _challenges()
    if challenge not in known:
        raise ConfigError(f"challenge: textworld has no {challenge!r}.{did_you_mean(challenge, known)} Known: "
                          f"{', '.join(known)}")  # fmt: skip
    parser = _Parser(prog=challenge, add_help=False, allow_abbrev=False)
    _, _, add_arguments = known[challenge]
    add_arguments(parser)
    words: list[str] = []
    for name, value in arguments.items():
        if value is not False:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return vars(parser.parse_args(words))


def _challenges() -> dict[str, Any]:
    """Return TextWorld's challenges by name: a description, what makes games, what adds its arguments to a parser."""
    challenges: dict[str, Any] = needed("textworld.challenges", "textworld").CHALLENGES
    return challenges


class _Parser(argparse.ArgumentParser):
    """Challenges say what they take by the options of a command line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"arguments of {self.prog}: {message}")


def _said(feedback: str) -> str:
    """Return what a game says, without its prompt and gaps."""
    return re.sub(r"\n\s*\n", "\n\n", _PROMPT.sub("", feedback.rstrip())).strip()
