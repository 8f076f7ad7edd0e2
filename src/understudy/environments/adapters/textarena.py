"""TextArena's games (https://github.com/LeonGuertler/TextArena): two players or more, who act by texts in turn.

Each player is an agent, and reads what the game and the others have said since its last turn. The game itself answers
what is no move, and lets the player try again or lose, by its own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from understudy.environments.base import Observation, Reward, Step
from understudy.environments.frame import system, user
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Message

from .foreign import ForeignEnvironment, Generators, in_thread, needed, to_json

ASKS_A_MODEL = ("Debate", "GuessWho", "ScenarioPlanning", "TwentyQuestions")
"""Games whose jury or game master is a model behind OpenRouter, by the name of their module."""

OUTCOMES = {-1: False, 0: False, 1: True}
"""What a reward says of its player where the game names winners: lost, drawn, won."""

NOTHING_NEW = "It is your turn."

Result = TypeVar("Result")


class TextArenaEnvironment(ForeignEnvironment):
    """The players of a game of TextArena.

    Rewards come at the end, and are the game's own. An agent has succeeded when the game says that it has won, and has
    not when it has lost or drawn. Where rewards are shares of something, nobody is said to have won, and success is
    unknown, as it is of a game that is cut short.

    Args:
        id: the game's, such as ``TicTacToe-v0``.
        arguments: of the game, in place of those that come with its id.
        num_players: for games that take several numbers of players.
        instructions: a system message for each agent, before the rules that the game gives; None for none.
        num_tasks, task_seed: tasks are seeds; see `ForeignEnvironment`.
        max_steps: the episode is truncated after so many actions of all agents; many games have limits of their own.

    Raises:
        ConfigError: there is no such game, it does not take the arguments or so many players, it asks a model, or it
            needs lists of words that are not there.
        MissingDependency: textarena is not installed.
    """

    default_max_steps: ClassVar[int] = 200

    def __init__(
        self,
        *,
        id: str,
        arguments: Mapping[str, Any] | None = None,
        num_players: int = 2,
        instructions: str | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(tasks=None, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self.agents: tuple[str, ...] = tuple(f"player_{number}" for number in range(num_players))
        self._arena = needed("textarena", "textarena")
        self._generators = Generators(0)
        self._instructions = instructions
        self._game = self._made(id, arguments or {})
        self._told: set[int] = set()

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start a game."""
        number = self.seed_of(task, seed)
        self._generators = Generators(number)
        await in_thread(self._call, partial(self._game.reset, num_players=len(self.agents), seed=number))
        self._num_steps, self._told = 0, set()
        return Step(observations=self._next())

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the action of the agent whose turn it is."""
        self._count_step()
        agent = self.agents[self._state.current_player_id]
        is_over, _ = await in_thread(self._call, partial(self._game.step, actions[agent].text()))
        if not is_over:
            is_cut = self._is_cut(False)
            self._num_steps = None if is_cut else self._num_steps
            return Step(observations=self._next(), truncated=is_cut, stop_reason="max_steps" if is_cut else None)
        self._num_steps = None
        given, info = self._game.close()
        rewards = {self.agents[player]: Reward(float(value)) for player, value in given.items()}
        seen = {self.agents[player]: self._observation(player) for player in given if self._state.observations[player]}
        ends = {agent: Observation(one.messages, info=_noted(info, agent)) for agent, one in seen.items()}
        return Step(observations=ends, rewards=rewards, terminated=True, success=_successes(rewards))

    async def close(self) -> None:
        """Let go of the game."""
        self._num_steps = None

    @property
    def _state(self) -> Any:
        return self._game.state

    def _made(self, id: str, arguments: Mapping[str, Any]) -> Any:
        """Make the game, and begin one, because only that tells whether it takes so many players.

        Raises:
            ConfigError: it cannot be made.
        """
        known = needed("textarena.envs.registration", "textarena").ENV_REGISTRY
        if id not in known:
            raise ConfigError(f"textarena has no game {id!r}.{did_you_mean(id, known)}")
        if any(f".{name}." in str(known[id].entry_point) for name in ASKS_A_MODEL):
            raise ConfigError(f"{id} asks a model over the network, and adapters reach none; play another game")
        try:
            made = self._call(partial(self._arena.make, id, **arguments))
            self._call(partial(made.reset, num_players=len(self.agents), seed=0))
        except Exception as error:  # games are of many hands: some need a newer Python or files that are not there
            if type(error) is LookupError:  # NLTK's; a KeyError or an IndexError is another matter
                mend = "python -m nltk.downloader words averaged_perceptron_tagger_eng"
                raise ConfigError(f"{id} needs lists of words that textarena does not bring: {mend}") from error
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"textarena cannot make {id!r} for {len(self.agents)} players: {reason}") from error
        return made

    def _call(self, function: Callable[[], Result]) -> Result:
        """Call a function of the game, which draws from the global generators, and may download nothing."""
        return self._generators.call(partial(_offline, function))

    def _next(self) -> dict[str, Observation]:
        """Return what the agent observes whose turn it is."""
        player = self._state.current_player_id
        return {self.agents[player]: self._observation(player)}

    def _observation(self, player: int) -> Observation:
        """Return what a player has not yet read; what it said itself it knows."""
        state = self._state
        action = self._arena.ObservationType.PLAYER_ACTION
        new = [one for one in state.observations[player] if not (one[0] == player and one[2] is action)]
        state.observations[player] = []
        text = "\n".join(f"[{state.role_mapping.get(sender, f'Player {sender}')}] {said}" for sender, said, _ in new)
        messages = [user(text or NOTHING_NEW)]
        if player not in self._told and self._instructions is not None:
            messages.insert(0, system(self._instructions))
        self._told.add(player)
        return Observation(tuple(messages))


def _successes(rewards: Mapping[str, Reward]) -> dict[str, bool | None]:
    """Say who has won; None for all where the rewards are no outcomes of a game that is won or lost."""
    values = {reward.value for reward in rewards.values()}
    if not values <= set(OUTCOMES):
        return dict.fromkeys(rewards)
    return {agent: OUTCOMES[int(reward.value)] for agent, reward in rewards.items()}


def _noted(info: Mapping[int, Any], agent: str) -> dict[str, JSON]:
    return {"game_info": to_json(info.get(int(agent.rpartition("_")[2])))}


def _offline(function: Callable[[], Result]) -> Result:
    """Call a function while NLTK downloads nothing: some games ask it for lists of words that may be there already."""
    nltk = needed("nltk", "textarena")
    download = nltk.download
    nltk.download = lambda *arguments, **others: False
    try:
        return function()
    finally:
        nltk.download = download
