"""Play an environment yourself, or watch a policy play it.

Shows what an agent would see, and asks for the action. Text is said; /name calls a tool: /move up, /get_order order=17.
In an environment with several agents you are the one that --agent names, and the others are played by --others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from understudy.errors import ConfigError
from understudy.registry import TABLES

from .console import messages, results
from .parser import Parser, one_of

if TYPE_CHECKING:
    from understudy.collect import Play
    from understudy.environments import Environment
    from understudy.policies import Policy
    from understudy.types import JSON, Episode

EPILOG = """
examples:
  understudy play grid puzzle=sokoban size=6
  understudy play tools level=3 --task 12 --split test
  understudy play math --policy expert
  understudy play team --agent planner --others expert
  understudy play examples/environments/number_guessing.py:NumberGuessing

exit status: 0 played to the end; 1 you left, or something failed; 2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    known = ", ".join(TABLES["environments"])
    parser.add_argument("environment", metavar="ENV", help=f"{known}, or your own file.py:Class")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="arguments of the environment")
    parser.add_argument("--task", type=int, default=0, metavar="N", help="which task of the split (default: 0)")
    parser.add_argument(
        "--split", type=one_of("train", "validation", "test"), default="train", help="where the task is from"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the environment (default: 0)")
    parser.add_argument("--policy", default="human", metavar="P", help="who plays: human (default), expert, random, …")
    parser.add_argument("--agent", metavar="A", help="which agent that is (default: the first)")
    parser.add_argument("--others", default="random", metavar="P", help="who plays the other agents (default: random)")
    parser.add_argument("--save", metavar="FILE", help="write the episode there")


def run(args: argparse.Namespace) -> int:
    from understudy import registry
    from understudy.collect import Play
    from understudy.formats import write_episodes

    environment: Environment = registry.create("environments", args.environment, read_arguments(args.arguments))
    agent = args.agent or environment.agents[0]
    if agent not in environment.agents:
        raise ConfigError(f"agent {agent!r}: the environment's agents are {', '.join(environment.agents)}")
    policies: dict[str, Policy] = {
        name: registry.create("policies", args.policy if name == agent else args.others) for name in environment.agents
    }
    name, task = _task(environment, args)
    play = Play(
        id=f"play-{args.split}-{args.task}-{args.seed}",
        environment=name,
        task=task,
        seed=args.seed,
        split=args.split,
    )
    episode = asyncio.run(_played(environment, policies, play))
    if args.save:
        write_episodes(args.save, [episode])
    return _show(episode, agent, watched=args.policy != "human")


async def _played(environment: Environment, policies: Mapping[str, Policy], play: Play) -> Episode:
    """Play the episode, and let go of what environment and policies hold."""
    from understudy.collect import play_episode

    try:
        return await play_episode(environment, policies, play)
    finally:
        for policy in policies.values():
            await policy.close()
        await environment.close()


def read_arguments(given: list[str]) -> dict[str, JSON]:
    from understudy.config.document import parse_value

    out: dict[str, JSON] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"argument {text!r}: write it as key=value, for example level=2")
        out[key] = parse_value(value, source=f"argument {text!r}")
    return out


def _task(environment: Environment, args: argparse.Namespace) -> tuple[str, JSON]:
    """Return the name of the environment that is played, and the task."""
    from understudy.environments import HasTasks
    from understudy.environments.mix import environment_of

    if not isinstance(environment, HasTasks):
        return args.environment, None
    tasks = environment.tasks(args.split)
    if not 0 <= args.task < len(tasks):
        raise ConfigError(f"--task {args.task}: the {args.split} split has {len(tasks):,} tasks, counted from 0")
    task = tasks[args.task]
    return environment_of(environment, task, args.environment), task


def _show(episode: Episode, agent: str, *, watched: bool) -> int:
    from understudy.policies.human import show_messages

    console = results()
    trajectory = next(one for one in episode.trajectories if one.agent == agent)
    if watched:
        for turn in trajectory.turns:
            show_messages(console, [*turn.observation, *([turn.action] if turn.action is not None else [])])
    elif trajectory.turns and trajectory.turns[-1].action is None:
        show_messages(console, trajectory.turns[-1].observation)
    if episode.error is not None:
        messages().print(episode.error, style="red", markup=False, soft_wrap=True)
        return 1
    outcome = {"success": episode.success, "reward": episode.reward, "stop_reason": episode.stop_reason}
    console.print(f"the end: {json.dumps(outcome)}", style="bold", markup=False)
    return 0
