"""Two agents, written against the bare protocol: they speak at once, then answer each other, and a judge decides.

    understudy collect environment.name=examples/environments/debate.py:Debate policy.name=random \\
        num_episodes=10 output_dir=debates

Nothing is inherited: `agents`, `reset`, `step` and `close` are all that an environment needs.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.environments import Observation, Reward, Step, user
from understudy.types import JSON, Message

QUESTIONS = ("Is a tomato a fruit?", "Is it better to write or to call?", "Should tests be run before every commit?")


class Debate:
    """Whoever uses more different words wins. Opening statements are made at once, rebuttals in turn.

    Only one side can win, so an episode as a whole is never a success; curate such data by the agents' own success.
    """

    agents = ("pro", "contra")

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        self.question = QUESTIONS[(seed or 0) % len(QUESTIONS)]
        self.said: dict[str, list[str]] = {agent: [] for agent in self.agents}
        return Step(
            observations={
                agent: Observation((user(f"{self.question} You argue {agent}. Say your opening statement."),))
                for agent in self.agents
            }
        )

    async def step(self, actions: Mapping[str, Message]) -> Step:
        for agent, message in actions.items():
            self.said[agent].append(message.text())
        if len(self.said["contra"]) == 1 and len(self.said["pro"]) == 1:
            return self._asks("pro", self.said["contra"][0])
        if len(self.said["contra"]) == 1:
            return self._asks("contra", self.said["pro"][1])
        num_words = {agent: len(set(" ".join(said).lower().split())) for agent, said in self.said.items()}
        pro, contra = (num_words[agent] for agent in self.agents)
        won = {"pro": pro > contra, "contra": contra > pro}
        return Step(
            rewards={agent: Reward(float(won[agent]), {"words": float(num_words[agent])}) for agent in self.agents},
            success=won,
            terminated=True,
            stop_reason="judged",
        )

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _asks(self, agent: str, statement: str) -> Step:
        return Step(observations={agent: Observation((user(f"The other side said: {statement} Answer."),))})
