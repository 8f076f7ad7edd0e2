"""An environment of one's own in one file: guess a number between 1 and 100.

    understudy play examples/environments/number_guessing.py:NumberGuessing
    understudy collect environment.name=examples/environments/number_guessing.py:NumberGuessing \\
        policy.name=expert num_episodes=100 output_dir=guesses

`ToolEnvironment` brings tasks, splits, steps, limits and snapshots along; what is left is the game itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from understudy.environments import Observation, Toolbox, ToolEnvironment, calls, system, user
from understudy.types import JSON, Message

MOST_GUESSES = 7


@dataclass
class Game:
    """The number, what is known of it, and how often was guessed."""

    number: int
    low: int = 1
    high: int = 100
    num_guesses: int = 0
    is_found: bool = False


class NumberGuessing(ToolEnvironment[Game]):
    """Find the number with seven guesses."""

    def make_toolbox(self) -> Toolbox:
        return Toolbox(self.guess)

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: from 1 to 100
        """
        game = self.state
        game.num_guesses += 1
        if number == game.number:
            game.is_found = True
            self.finish("found")
            return "That is it."
        if game.num_guesses == MOST_GUESSES:
            self.finish("out_of_guesses")
        if number < game.number:
            game.low = max(game.low, number + 1)
            return "It is larger."
        game.high = min(game.high, number - 1)
        return "It is smaller."

    def draw_task(self, rng: random.Random) -> JSON:
        return {"number": rng.randint(1, 100), "greeting": rng.choice(["Hello", "Hi", "Good day", "Welcome"])}

    def begin(self, task: dict[str, JSON]) -> tuple[Game, tuple[Message, ...]]:
        rules = f"Find a number between 1 and 100. You have {MOST_GUESSES} guesses."
        return Game(task["number"]), (system(rules), user(f"{task['greeting']}! Guess my number."))

    def on_text(self, text: str) -> str | None:
        return "Please call the tool guess."

    def is_success(self) -> bool:
        return self.state.is_found

    def decide(self, observation: Observation) -> Message:
        """The expert: halve what is left."""
        return calls("guess", number=(self.state.low + self.state.high) // 2)
