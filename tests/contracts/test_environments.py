"""What every environment of the table promises: determinism, splits, an expert, schemas, snapshots, clean records."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest

from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments import (
    SPLITS,
    Environment,
    HasExpert,
    HasSnapshots,
    HasTasks,
    Step,
    split_of,
    task_key,
)
from understudy.errors import ConfigError, EnvironmentFault
from understudy.formats.native import Native
from understudy.formats.rows import dump_row
from understudy.policies import Policy
from understudy.policies.labelled import LabelledPolicy
from understudy.policies.mixture import MixturePolicy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.sandbox import NO_ISOLATION, available_isolation
from understudy.types import Episode, Message, Tool, ToolCall

# Expert and random policy write harmless programs, so they may run on a machine that isolates none.
ISOLATION: dict[str, Any] = {} if available_isolation() else {"isolation": NO_ISOLATION}

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "math": [{}, {"kinds": ["expression"], "max_operations": 1}, {"max_operations": 6}],
    "grid": [
        {},
        {"puzzle": "sokoban", "min_moves": 4},
        {"puzzle": "sokoban", "size": 7, "num_boxes": 2, "interface": "text", "view": "replace"},
        {"size": 8, "wall_share": 0.0, "interface": "text", "coordinates": False, "spare_moves": 0},
    ],
    "tools": [{"level": level} for level in (1, 2, 3, 4, 5)] + [{"level": 1, "num_orders": [1, 2]}],
    "function_gym": [{"level": level} for level in (1, 2)],
    "code": [{"level": level} | ISOLATION for level in (1, 2, 3)] + [{"expert_mistakes": 0.5} | ISOLATION],
    "search": [{"level": level} for level in (1, 2, 3, 4)],
    "debate": [{"level": level} for level in (1, 2, 3)]
    + [{"level": 1, "simultaneous_openings": True, "num_speeches": 3}, {"turn_order": [["contra", "pro"]]}],
    "user_gym": [{"level": level} for level in (1, 2, 3, 4)],
    "team": [{"level": level} for level in (1, 2, 3)] + [{"turn_order": ["planner", "solver"]}],
    "mix": [
        {
            "environments": {
                "shop": {"name": "tools", "arguments": {"level": 1}, "ratio": 2},
                "maze": {"name": "grid", "arguments": {"interface": "text"}, "ratio": 1},
            }
        },
        {
            "environments": {"sums": "math", "gym": {"name": "function_gym", "arguments": {"level": 1}}},
            "temperature": 2,
        },
        {"environments": {f"level_{n}": {"name": "team", "arguments": {"level": n}} for n in (1, 2)}},
    ],
}
BORROWING = ("dream", "remote")
"""Environments in the place of another, which have no tasks of their own; see tests/world_models and test_remote."""

ADAPTERS = (
    "gymnasium",
    "minigrid",
    "mrlm",
    "petting_llms",
    "pettingzoo",
    "reasoning_gym",
    "textarena",
    "textworld",
    "user_rl",
)
"""Environments of others, which have their own rules, and experts only where they bring them; see
tests/environments/adapters."""

ZERO_SUM = ("debate",)
"""Here one agent's success is the other's failure, so how well they play is told by their rewards."""

CASES = [(name, arguments) for name, variants in VARIANTS.items() for arguments in variants]
NUM_TASKS = 200
NUM_TASKS_BY_CHANCE = 60


def make(name: str, arguments: dict[str, Any]) -> Environment:
    return registry.create("environments", name, arguments)


def changed(name: str, arguments: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return the arguments with others in their place; a mix gives them to its environments."""
    if name != "mix":
        return arguments | others
    members = {key: {"name": one} if isinstance(one, str) else one for key, one in arguments["environments"].items()}
    return arguments | {
        "environments": {key: one | {"arguments": one.get("arguments", {}) | others} for key, one in members.items()}
    }


def plays(name: str, arguments: dict[str, Any], num: int) -> list[Play]:
    tasks = make(name, arguments).tasks("test")
    return [Play(id=f"{name}-{i}", environment=name, task=tasks[i], seed=i, split="test") for i in range(num)]


def play(name: str, arguments: dict[str, Any], which: Sequence[Play], policy: Policy, **options: Any) -> list[Episode]:
    episodes: list[Episode] = []
    policies = dict.fromkeys(make(name, arguments).agents, policy)
    asyncio.run(play_all(which, lambda: make(name, arguments), policies, episodes.append, concurrency=4, **options))
    return sorted(episodes, key=lambda episode: episode.seed or 0)


def test_every_environment_of_the_table_stands_here() -> None:
    assert sorted([*VARIANTS, *BORROWING, *ADAPTERS]) == sorted(registry.TABLES["environments"])


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_expert_solves_all_tasks_and_chance_few(name: str, arguments: dict[str, Any]) -> None:
    which = plays(name, arguments, NUM_TASKS)
    by_expert = play(name, arguments, which, ExpertPolicy())
    assert [episode.error for episode in by_expert if episode.error is not None] == []
    assert all(t.reward == 1.0 for episode in by_expert for t in episode.trajectories)
    assert all(episode.reward == 1.0 and episode.stop_reason for episode in by_expert)
    by_chance = play(name, arguments, which[:NUM_TASKS_BY_CHANCE], RandomPolicy(), max_turns=30)
    assert [episode.error for episode in by_chance if episode.error is not None] == []
    if name in ZERO_SUM:
        assert all(sum(t.success is True for t in episode.trajectories) <= 1 for episode in by_expert)
        assert sum(episode.reward or 0.0 for episode in by_chance) <= 0.15 * NUM_TASKS_BY_CHANCE
    else:
        assert all(t.success is True for episode in by_expert for t in episode.trajectories)
        assert [episode.success for episode in by_expert] == [True] * NUM_TASKS
        assert sum(episode.success is True for episode in by_chance) <= 0.15 * NUM_TASKS_BY_CHANCE


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_expert_says_what_to_do_wherever_others_have_led(name: str, arguments: dict[str, Any]) -> None:
    policy = LabelledPolicy(MixturePolicy(0.5), ExpertPolicy())
    episodes = play(name, arguments, plays(name, arguments, NUM_TASKS_BY_CHANCE), policy, max_turns=12)
    assert [episode.error for episode in episodes if episode.error is not None] == []
    happened = [turn for episode in episodes for _, _, turn in episode.turns() if turn.action and not turn.is_label]
    assert {"agrees" in turn.annotations for turn in happened} <= {True, False}
    assert sum(turn.annotations.get("agrees") is False for turn in happened) > NUM_TASKS_BY_CHANCE / 4
    assert sum("unlabelled" in turn.annotations for turn in happened) < len(happened) / 4


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_same_task_and_seed_give_the_same_episode_byte_for_byte(name: str, arguments: dict[str, Any]) -> None:
    native = Native()
    for policy in (ExpertPolicy(), RandomPolicy()):
        first, second = (
            [dump_row(native.write_row(e)) for e in play(name, arguments, plays(name, arguments, 10), policy)]
            for _ in range(2)
        )
        assert first == second


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_seed_alone_also_decides_the_episode(name: str, arguments: dict[str, Any]) -> None:
    first, again, other = (
        play(name, arguments, [Play(id="x", seed=seed)], ExpertPolicy())[0].trajectories for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_splits_do_not_overlap_and_tasks_do_not_repeat(name: str, arguments: dict[str, Any]) -> None:
    environment = make(name, arguments)
    assert isinstance(environment, HasTasks)
    keys = {split: [task_key(task) for task in itertools.islice(environment.tasks(split), 100)] for split in SPLITS}
    assert all(len(set(found)) == 100 for found in keys.values())
    assert not set(keys["train"]) & set(keys["test"])
    assert not set(keys["train"]) & set(keys["validation"])
    own = [task["task"] if name == "mix" else task for task in itertools.islice(environment.tasks("test"), 50)]
    assert all(split_of(task) == "test" for task in own)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_task_sets_are_sized_seeded_and_json(name: str, arguments: dict[str, Any]) -> None:
    small = make(name, changed(name, arguments, num_tasks={"train": 5})).tasks("train")
    assert len(small) == 5 or (name == "mix" and 5 < len(small) <= 10)
    assert list(small) == make(name, arguments).tasks("train")[: len(small)]
    assert list(small) == json.loads(json.dumps(list(small)))
    assert list(make(name, changed(name, arguments, task_seed=1)).tasks("train")[:5]) != list(small)[:5]
    with pytest.raises(IndexError):
        small[len(small)]
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        make(name, arguments).tasks("trian")
    with pytest.raises(ConfigError, match="num_tasks"):
        make(name, changed(name, arguments, num_tasks=-1))


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_tool_schemas_are_valid_and_random_calls_fit_them(name: str, arguments: dict[str, Any]) -> None:
    (episode,) = play(name, arguments, plays(name, arguments, 1), RandomPolicy(), max_turns=30)
    for trajectory in episode.trajectories:
        schemas = {tool.name: tool.parameters for tool in trajectory.tools()}
        for tool in trajectory.tools():
            jsonschema.Draft202012Validator.check_schema(tool.parameters)
            assert tool.description
            assert all(parameter["description"] for parameter in tool.parameters["properties"].values())
        for message in trajectory.messages():
            for call in message.tool_calls:
                jsonschema.validate(call.arguments, schemas[call.name])


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_snapshot_brings_the_same_future_back(name: str, arguments: dict[str, Any]) -> None:
    async def futures() -> tuple[list[Any], list[Any]]:
        environment = make(name, arguments)
        assert isinstance(environment, HasSnapshots)
        assert isinstance(environment, HasExpert)
        experts = {agent: environment.expert(agent) for agent in environment.agents}

        async def play_on(step: Step) -> Step:
            return await environment.step({agent: experts[agent](seen) for agent, seen in step.observations.items()})

        step = await play_on(await environment.reset(environment.tasks("train")[0]))
        middle, snapshot = step, environment.snapshot()
        found = []
        for _ in range(2):
            step, seen = middle, []
            while not step.is_over:
                step = await play_on(step)
                seen.append(step)
            found.append(seen)
            environment.restore(snapshot)
        return found[0], found[1]

    first, second = asyncio.run(futures())
    assert first == second


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_bad_actions_are_answered_and_bad_use_is_refused(name: str, arguments: dict[str, Any]) -> None:
    def bad_calls(tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
        broken = [ToolCall(tool.name, arguments, "b") for tool in tools for arguments in ("{", "[]", {"zz": 1})]
        return (ToolCall("no_such_tool", {}, "a"), *broken)

    async def check() -> None:
        environment = make(name, arguments)
        with pytest.raises(EnvironmentFault, match="reset"):
            await environment.step(dict.fromkeys(environment.agents, Message("assistant", "hello")))
        for task in ({}, [], "nonsense", {"question": "x"}):
            with pytest.raises(EnvironmentFault, match="no task of"):
                await environment.reset(task)
        step = await environment.reset(environment.tasks("train")[0])
        acting = {agent: observation.tools or () for agent, observation in step.observations.items()}
        bad = {agent: bad_calls(tools) for agent, tools in acting.items()}
        step = await environment.step({a: Message("assistant", None, tool_calls=calls) for a, calls in bad.items()})
        assert not step.is_over
        for agent, tools in acting.items():
            messages = step.observations[agent].messages
            if tools:
                assert [message.tool_call_id for message in messages] == [call.id for call in bad[agent]]
                assert all(message.text().startswith("Error: ") for message in messages)
        await environment.close()

    asyncio.run(check())


@pytest.mark.parametrize("name", VARIANTS)
def test_unknown_arguments_get_a_hint(name: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'num_tasks'"):
        make(name, changed(name, VARIANTS[name][0], num_task=3))


@pytest.fixture(scope="module")
def renderer() -> Any:
    from understudy.models.tiny import train_tokenizer
    from understudy.rendering import Renderer, from_transformers

    return Renderer(from_transformers(train_tokenizer(["a b c"] * 9, vocab_size=300), name="tiny"), observations=True)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_every_turn_of_its_episodes_is_rendered_exactly(name: str, arguments: dict[str, Any], renderer: Any) -> None:
    for policy in (ExpertPolicy(), RandomPolicy()):
        for episode in play(name, arguments, plays(name, arguments, 5), policy, max_turns=8):
            for trajectory in episode.trajectories:
                rendered = renderer.render(trajectory)
                assert len(rendered.turns) == sum(turn.action is not None for turn in trajectory.turns)
                assert not rendered.refusals
                assert not rendered.dropped_context
