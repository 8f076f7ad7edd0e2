"""Curating: what each rule keeps, and that it says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict
from understudy.curate import CurateConfig, CurateResult, curate
from understudy.curate.rules import (
    AgentCount,
    AgentRatios,
    ReplayBuffer,
    apply_rules,
    rules_of,
    summarise,
    task_of,
)
from understudy.curate.split import held_out_tasks
from understudy.errors import ConfigError, DataError
from understudy.formats import read_episodes, write_episodes
from understudy.types import ORIGIN, Episode, Trajectory


def episode(n: int, *, task: Any = None, turns: int = 1, text: str = "", **fields: Any) -> Episode:
    messages = [
        m
        for t in range(turns)
        for m in ({"role": "user", "content": f"{n} {text}"}, {"role": "assistant", "content": str(t)})
    ]
    made = Episode.from_messages(messages, id=f"e{n}", environment="env")
    return replace(made, task={"n": n} if task is None else task, **fields)


def run(folder: Path, episodes: list[Episode], *, overwrite: bool = False, **fields: Any) -> CurateResult:
    write_episodes(folder / "in.jsonl", episodes)
    config = config_from_dict(
        CurateConfig, {"path": str(folder / "in.jsonl"), "output_dir": str(folder / "out")} | fields
    )
    return curate(config, overwrite=overwrite)


def ids(path: Path | None) -> list[str]:
    return [e.id for e in read_episodes(str(path), "native")]


def kept(folder: Path, episodes: list[Episode], **fields: Any) -> tuple[list[str], dict[str, int]]:
    """Return the ids that one rule keeps, and the reasons that it gives for the others."""
    result = run(folder, episodes, **fields)
    (rule,) = [rule for rule in result.rules if rule.rule != "drop_errors"]
    assert (rule.num_before, rule.num_kept) == (len(episodes), result.num_train)
    assert sum(rule.reasons.values()) == rule.num_before - rule.num_kept
    return ids(result.train), rule.reasons


def test_without_rules_all_is_kept_but_what_a_fault_ended(tmp_path: Path) -> None:
    result = run(tmp_path, [episode(0), episode(1, error="gone"), episode(2, success=False)])
    assert ids(result.train) == ["e0", "e2"]
    assert [(r.rule, r.num_before, r.num_kept, r.reasons) for r in result.rules] == [
        ("drop_errors", 3, 2, {"ended by a fault": 1})
    ]
    assert (result.validation, result.num_validation) == (None, 0)


def test_only_success_drops_failures_and_the_unknown(tmp_path: Path) -> None:
    episodes = [episode(0, success=True), episode(1, success=False), episode(2), episode(3, success=True, reward=0.0)]
    assert kept(tmp_path, episodes, only_success=True) == (["e0", "e3"], {"failed": 1, "success is unknown": 1})


def team(n: int, **successes: bool | None) -> Episode:
    """Return an episode of several agents, each with its own success."""
    turns = episode(n).trajectories[0].turns
    trajectories = tuple(Trajectory(turns, agent=agent, success=success) for agent, success in successes.items())
    return replace(episode(n), trajectories=trajectories, success=all(successes.values()))


def kept_agents(result: CurateResult) -> dict[str, list[str]]:
    return {e.id: [t.agent for t in e.trajectories] for e in read_episodes(str(result.train), "native")}


def test_an_agents_own_success_keeps_its_trajectory_and_not_the_others(tmp_path: Path) -> None:
    episodes = [
        team(0, a=True, b=False),
        team(1, a=False, b=False),
        team(2, a=None, b=False),
        team(3, a=True, b=True),
        episode(4, success=True),
    ]
    result = run(tmp_path, episodes, only_success=True, collect_mode="agent")
    assert kept_agents(result) == {"e0": ["a"], "e3": ["a", "b"], "e4": ["agent"]}
    rule = result.rules[-1]
    assert rule.reasons == {"all agents failed": 1, "success is unknown": 1}
    assert rule.agents == {"a": AgentCount(4, 2), "b": AgentCount(4, 1), "agent": AgentCount(1, 1)}
    by_agent = json.loads((tmp_path / "out" / "train_stats.json").read_text())["by"]["agent"]
    assert {agent: group["num_episodes"] for agent, group in by_agent.items()} == {"a": 2, "b": 1, "agent": 1}


def test_agents_are_balanced_by_leaving_out_trajectories_and_the_rule_says_how_many(tmp_path: Path) -> None:
    episodes = [team(n, a=True, b=n % 3 == 0) for n in range(30)]
    ratios = {"a": 1, "b": 2}
    result = run(tmp_path, episodes, only_success=True, collect_mode="agent", agent_ratios=ratios)
    rule = result.rules[-1]
    assert (rule.rule, rule.num_before, rule.num_kept) == ("agent_ratios", 30, result.num_train)
    assert rule.agents == {"a": AgentCount(30, 5), "b": AgentCount(10, 10)}
    assert rule.reasons == {"none of its trajectories is drawn": 30 - result.num_train}
    names = [agent for agents in kept_agents(result).values() for agent in agents]
    assert (names.count("a"), names.count("b")) == (5, 10)
    again = run(tmp_path, episodes, only_success=True, collect_mode="agent", agent_ratios=ratios, overwrite=True)
    assert kept_agents(again) == kept_agents(result)


def test_an_agent_without_trajectories_holds_nobody_down(tmp_path: Path) -> None:
    episodes = [team(n, a=True, b=True, c=False) for n in range(4)]
    ratios = {"a": 1, "b": 0.5, "c": 9}
    result = run(tmp_path, episodes, only_success=True, success_of="agent", agent_ratios=ratios)
    assert result.rules[-1].agents == {"a": AgentCount(4, 4), "b": AgentCount(4, 2), "c": AgentCount(0, 0)}
    alone = run(tmp_path, episodes, agent_ratios={"a": 0, "b": 0, "c": 1}, overwrite=True)
    assert kept_agents(alone) == {f"e{n}": ["c"] for n in range(4)}


@given(
    st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=30),
    st.fixed_dictionaries({agent: st.sampled_from([0, 0.1, 1, 2.5, 1000]) for agent in "abc"}),
)
def test_balance_takes_all_that_the_ratios_allow_and_never_all_of_an_agent(
    episodes: list[set[str]], ratios: dict[str, float]
) -> None:
    candidates = [summarise(team(n, **dict.fromkeys(sorted(who), True)), n) for n, who in enumerate(episodes)]
    kept, _ = apply_rules([AgentRatios(ratios, seed=0)], candidates)
    have = Counter(agent for who in episodes for agent in who)
    num = Counter(c.agents[i] for c in kept for i in c.trajectories)
    wanted = {agent: ratio for agent, ratio in ratios.items() if ratio and have[agent]}
    assert all(1 <= num[agent] <= have[agent] for agent in wanted)
    assert set(num) == set(wanted)
    assert all(c.trajectories for c in kept)
    if wanted:
        assert any(num[agent] == have[agent] for agent in wanted)
        scale = min(have[agent] / ratio for agent, ratio in wanted.items())
        assert all(num[a] == 1 or abs(num[a] - ratio * scale) < 1 for a, ratio in wanted.items())


@pytest.mark.parametrize(
    ("ratios", "reason"),
    [
        ({"a": 1, "bb": 1}, "no agent 'bb'.*Did you mean 'b'.*It has a, b"),
        ({"a": 1}, "a ratio for agent 'b' too"),
        ({"a": 0, "b": 0}, "one above 0"),
        ({"a": -1, "b": 1}, "from 0 up"),
    ],
)
def test_ratios_that_leave_open_what_is_meant_are_refused(tmp_path: Path, ratios: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(tmp_path, [team(0, a=True, b=True)], agent_ratios=ratios)


def test_rewards_below_the_threshold_and_unknown_ones_go(tmp_path: Path) -> None:
    episodes = [episode(0, reward=0.5), episode(1, reward=0.49), episode(2), episode(3, reward=-1.0)]
    reasons = {"reward below 0.5": 2, "reward is unknown": 1}
    assert kept(tmp_path, episodes, min_reward_threshold=0.5) == (["e0"], reasons)


def test_lengths_are_limited_by_turns_and_characters(tmp_path: Path) -> None:
    episodes = [episode(0, turns=1), episode(1, turns=2), episode(2, turns=3), episode(3, turns=2, text="x" * 100)]
    assert kept(tmp_path, episodes, max_turns=2) == (["e0", "e1", "e3"], {"more than 2 turns": 1})
    assert kept(tmp_path, episodes, min_turns=2, overwrite=True) == (["e1", "e2", "e3"], {"fewer than 2 turns": 1})
    assert kept(tmp_path, episodes, max_characters=50, overwrite=True)[1] == {"more than 50 characters": 1}


def test_lengths_in_tokens_are_those_of_the_models_tokenizer(tmp_path: Path, test_data: Path) -> None:
    model = str(test_data / "tokenizers" / "qwen3")
    episodes = [episode(0, text="word " * 20), episode(1, text="word " * 200)]
    assert kept(tmp_path, episodes, max_tokens=100, model=model) == (["e0"], {"more than 100 tokens": 1})


def test_the_length_of_branches_is_that_of_the_longest() -> None:
    root, *_ = episode(0, text="x" * 40).trajectories[0].turns
    branches = (root, replace(root, parent=0), replace(root, parent=0))
    found = summarise(replace(episode(0), trajectories=(Trajectory(branches),)), 0)
    assert (
        found.num_characters
        == 2 * summarise(replace(episode(0), trajectories=(Trajectory((root,)),)), 0).num_characters
    )


def test_what_was_said_and_done_twice_is_kept_once_whatever_its_ids(tmp_path: Path) -> None:
    def called(n: int, id: str, city: str) -> Episode:
        call = {"id": id, "function": {"name": "f", "arguments": {"city": city}}}
        messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        return Episode.from_messages(messages, id=f"e{n}", reward=float(n))

    episodes = [called(0, "a", "Rome"), called(1, "b", "Rome"), called(2, "a", "Oslo"), called(3, "c", "Rome")]
    assert kept(tmp_path, episodes, deduplicate=True) == (["e0", "e2"], {"the same as an earlier one": 2})


def test_the_best_of_each_task_are_kept(tmp_path: Path) -> None:
    episodes = [
        episode(0, task="a", reward=0.2),
        episode(1, task="b", reward=0.9, turns=2),
        episode(2, task="a", reward=0.8),
        episode(3, task="b", reward=0.9, success=True, turns=3),
        episode(4, task="a"),
        episode(5, task="b", reward=0.9, turns=1),
    ]
    reasons = {"not among the best 1 of its task": 4}
    assert kept(tmp_path, episodes, best_of_n=1) == (["e2", "e3"], reasons)
    assert kept(tmp_path, episodes, best_of_n=2, overwrite=True)[0] == ["e0", "e2", "e3", "e5"]


def test_a_sample_is_drawn_by_the_seed_and_keeps_its_order(tmp_path: Path) -> None:
    episodes = [episode(n) for n in range(50)]
    first, reasons = kept(tmp_path, episodes, max_trajectories=10)
    again, _ = kept(tmp_path, episodes, max_trajectories=10, overwrite=True)
    other, _ = kept(tmp_path, episodes, max_trajectories=10, seed=1, overwrite=True)
    assert first == again != other
    assert first == sorted(first, key=lambda id: int(id[1:]))
    assert (len(first), reasons) == (10, {"not drawn": 40})
    assert len(kept(tmp_path, episodes, max_trajectories=99, overwrite=True)[0]) == 50


def test_a_task_is_held_out_with_all_its_plays_and_stays_there_when_the_data_grows(tmp_path: Path) -> None:
    episodes = [episode(n, task=n % 40) for n in range(200)]
    result = run(tmp_path, episodes, validation_split=0.25)
    train, held_out = set(ids(result.train)), set(ids(result.validation))
    assert len(train) + len(held_out) == 200
    assert not train & held_out
    tasks = {e.id: e.task for e in episodes}
    assert not {tasks[id] for id in train} & {tasks[id] for id in held_out}
    assert 0.1 < len(held_out) / 200 < 0.4
    more = run(tmp_path, [*episodes, episode(200, task=99)], validation_split=0.25, overwrite=True)
    assert held_out <= set(ids(more.validation))
    other = run(tmp_path, episodes, validation_split=0.25, seed=1, overwrite=True)
    assert set(ids(other.validation)) != held_out


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_neither_side_of_the_split_is_empty(tmp_path: Path, share: float, seed: int) -> None:
    result = run(tmp_path, [episode(n, task=n % 3) for n in range(9)], validation_split=share, seed=seed)
    assert result.num_train in (3, 6)
    assert result.num_train + result.num_validation == 9


@pytest.mark.parametrize("output", [".", "curated"])
def test_a_folder_that_is_written_into_is_read_as_it_was_before(tmp_path: Path, output: str) -> None:
    write_episodes(tmp_path / "a.jsonl", [episode(n) for n in range(5)])
    write_episodes(tmp_path / "z.jsonl", [episode(n) for n in range(5, 20)])  # after train.jsonl and curated/
    result = curate(CurateConfig(path=str(tmp_path), output_dir=str(tmp_path / output), validation_split=0.3))
    train, validation = ids(result.train), ids(result.validation)
    assert len(validation) == result.num_validation > 1
    assert sorted(train + validation) == sorted(f"e{n}" for n in range(20))


def test_names_with_half_of_a_utf16_pair_are_split_too(tmp_path: Path) -> None:
    episodes = [replace(episode(n), id=f"\ud83d{n}", task=None) for n in range(4)]
    result = run(tmp_path, episodes, validation_split=0.5)
    assert sorted(ids(result.train) + ids(result.validation)) == sorted(e.id for e in episodes)


def test_rewards_whose_sum_no_float_holds_are_written_down(tmp_path: Path) -> None:
    run(tmp_path, [episode(n, reward=1.5e308) for n in range(3)])
    reward = json.loads((tmp_path / "out" / "train_stats.json").read_text())["overall"]["reward"]
    assert (reward["count"], reward["total"], reward["mean"]) == (3, None, pytest.approx(1.5e308))


def test_agents_with_half_of_a_utf16_pair_in_their_names_are_balanced_too(tmp_path: Path) -> None:
    half = "\ud83d"
    episodes = [team(n, **{half: True, "b": True}) for n in range(6)]
    result = run(tmp_path, episodes, agent_ratios={half: 1, "b": 2})
    assert result.rules[-1].agents == {half: AgentCount(6, 3), "b": AgentCount(6, 6)}


def test_a_single_task_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all 3 episodes that are left are of one task"):
        run(tmp_path, [episode(n, task=1) for n in range(3)], validation_split=0.5)


def test_rules_follow_each_other_in_the_configs_order(tmp_path: Path) -> None:
    episodes = [episode(n, task=n % 5, reward=n / 20, success=n % 2 == 0) for n in range(20)]
    result = run(tmp_path, episodes, max_trajectories=2, best_of_n=1, only_success=True, min_reward_threshold=0.3)
    assert [rule.rule for rule in result.rules] == [
        "drop_errors", "only_success", "min_reward_threshold", "best_of_n", "max_trajectories",
    ]  # fmt: skip
    for before, after in zip(result.rules, result.rules[1:], strict=False):
        assert after.num_before == before.num_kept


def test_all_rules_are_applied_in_the_order_in_which_the_config_lists_them() -> None:
    given = dict.fromkeys(("deduplicate", "only_success"), True) | {"agent_ratios": {"a": 1}, "model": "tokenizer"}
    numbers = ("min_reward_threshold", "min_turns", "max_turns", "max_characters", "max_tokens", "best_of_n")
    given |= dict.fromkeys((*numbers, "max_trajectories", "replay_buffer_size"), 1)
    names = [rule.name for rule in rules_of(CurateConfig(path="in", output_dir="out", **given))]
    assert names == [name for name in CurateConfig.model_fields if name in {*given, "drop_errors"} - {"model"}]


def test_the_folder_says_what_was_done(tmp_path: Path) -> None:
    result = run(tmp_path, [episode(n, success=n > 2) for n in range(9)], only_success=True, validation_split=0.3)
    report = json.loads((tmp_path / "out" / "curation_stats.json").read_text())
    assert (report["num_read"], report["num_train"] + report["num_validation"]) == (9, 6)
    assert report["rules"][1] == {
        "rule": "only_success",
        "num_before": 9,
        "num_kept": 6,
        "reasons": {"failed": 3},
        "agents": {},
    }
    stats = json.loads((tmp_path / "out" / "train_stats.json").read_text())
    assert stats["overall"]["num_episodes"] == result.num_train
    assert "only_success: true" in (tmp_path / "out" / "config.yaml").read_text()
    assert sorted(e.id for e in read_episodes(str(tmp_path / "out"))) == [f"e{n}" for n in range(3, 9)]


def test_nothing_is_written_over_and_nothing_left_is_said(tmp_path: Path) -> None:
    run(tmp_path, [episode(0)])
    with pytest.raises(ConfigError, match="exists already"):
        run(tmp_path, [episode(0)])
    with pytest.raises(ConfigError, match="no episode is left of 2; only_success left out 2 of 2"):
        run(tmp_path, [episode(0), episode(1)], only_success=True, overwrite=True)
    with pytest.raises(ConfigError, match="standard input"):
        curate(config_from_dict(CurateConfig, {"path": "-", "output_dir": str(tmp_path / "x")}))
    source = str(tmp_path / "out" / "train.jsonl")
    with pytest.raises(ConfigError, match="one of the files to read"):
        curate(config_from_dict(CurateConfig, {"path": source, "output_dir": str(tmp_path / "out")}), overwrite=True)


def test_nothing_of_an_earlier_curation_stays_beside_what_replaces_it(tmp_path: Path) -> None:
    episodes = [episode(n) for n in range(8)]
    run(tmp_path, episodes, validation_split=0.25)
    folder = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"train\.jsonl: exists already"):
        run(tmp_path, episodes, output_format="parquet")
    run(tmp_path, episodes, output_format="parquet", overwrite=True)
    assert sorted(path.name for path in folder.iterdir() if "train" in path.name or "valid" in path.name) == [
        "train.parquet",
        "train_stats.json",
    ]
    config = {"path": str(folder / "train.parquet"), "output_dir": str(folder)}
    with pytest.raises(ConfigError, match="one of the files to read"):
        curate(config_from_dict(CurateConfig, config), overwrite=True)


def test_two_at_once_never_write_into_one_folder(tmp_path: Path) -> None:
    write_episodes(tmp_path / "in.jsonl", [episode(n) for n in range(3)])
    config = CurateConfig(path=str(tmp_path / "in.jsonl"), output_dir=str(tmp_path / "out"))

    def while_another_starts(episodes: Iterable[Episode], label: str) -> Iterator[Episode]:
        with pytest.raises(ConfigError, match="another process is running in this folder"):
            curate(config, overwrite=True)
        yield from episodes

    assert curate(config, watch=while_another_starts).num_train == 3
    assert curate(config, overwrite=True).num_train == 3


def test_a_task_is_told_by_what_is_known_of_it() -> None:
    assert task_of(episode(0, task={"a": 1, "b": 2})) == task_of(episode(9, task={"b": 2, "a": 1}))
    bare = replace(episode(0), task=None)
    assert task_of(replace(bare, seed=1)) == task_of(replace(bare, seed=1, id="other"))
    assert task_of(bare) != task_of(replace(bare, id="other"))


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"min_turns": 3, "max_turns": 2}, {"validation_split": 1.0}])
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path, [episode(0)], **fields)


def test_a_replay_buffer_keeps_the_newest_and_counts_what_goes(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = run(tmp_path / "old", [episode(n) for n in range(6)])
    new = [episode(n) for n in range(6, 10)]
    result = run(tmp_path, new, replay_path=str(old.train), replay_buffer_size=7)
    assert ids(result.train) == [f"e{n}" for n in range(3, 10)]
    assert result.rules[-1].reasons == {"older than those that fit": 3}
    assert ids(run(tmp_path, new, replay_path=str(old.train), overwrite=True).train) == [f"e{n}" for n in range(10)]


def test_what_was_kept_is_judged_again_with_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = run(tmp_path / "old", [episode(0, task="a", reward=0.5), episode(1, task="b", reward=1.0)])
    new = [episode(2, task="a", reward=1.0), episode(3, task="b", reward=0.1)]
    result = run(tmp_path, new, replay_path=[str(old.train)], best_of_n=1)
    assert ids(result.train) == ["e1", "e2"]


def test_held_out_tasks_stay_held_out_in_a_buffer_and_have_their_share_of_it(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"validation_split": 0.25, "replay_buffer_size": 40}
    files: list[str] = []
    held_out: set[str] = set()
    trained: set[str] = set()
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        episodes = [episode(100 * number + n) for n in range(30)]
        result = run(folder, episodes, replay_path=files, **fields)
        files = [str(result.train), str(result.validation)]
        held_out.update(ids(result.validation))
        trained.update(ids(result.train))
        newest = [id for id in ids(result.train) if int(id[1:]) >= 100 * number]
        assert ids(result.train)[-len(newest) :] == newest
    assert not held_out & trained
    assert (result.num_train, result.num_validation) == (30, 10)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.0, 0.2, 0.5]))
def test_a_buffer_holds_no_more_than_its_size_and_leaves_out_the_oldest_of_each_side(
    num: int, size: int, share: float
) -> None:
    candidates = [summarise(episode(n), n) for n in range(num)]
    rule = ReplayBuffer(size, share, seed=0)
    (kept, _) = apply_rules([rule], candidates)
    held_out = held_out_tasks(candidates, share, 0)
    assert len(kept) <= max(size, 2 if held_out else 1)
    for side in (True, False):
        here = [c for c in candidates if (c.task in held_out) is side]
        mine = [c for c in kept if (c.task in held_out) is side]
        assert mine == here[len(here) - len(mine) :]


GRID: dict[str, Any] = {"name": "grid", "arguments": {"interface": "text"}}


@pytest.fixture(scope="module")
def wandered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of somebody who seldom finds the way."""
    folder = tmp_path_factory.mktemp("wandered")
    policy = {"name": "mixture", "arguments": {"chance": 0.3}}
    collect(CollectConfig(environment=GRID, policy=policy, num_episodes=60, output_dir=str(folder)))
    return folder


def test_hindsight_adds_failures_as_successes_and_counts_them(wandered: Path, tmp_path: Path) -> None:
    def curated(name: str, **fields: Any) -> CurateResult:
        given = {"path": str(wandered), "output_dir": str(tmp_path / name), "only_success": True}
        return curate(config_from_dict(CurateConfig, given | fields))

    plain, more = curated("plain"), curated("more", hindsight=True, environment=GRID)
    added = [e for e in read_episodes(str(more.train)) if ORIGIN in e.metadata]
    failed = {e.id for e in read_episodes(str(wandered)) if e.success is False}
    assert plain.num_relabelled == 0
    assert len(added) == more.num_relabelled > 10
    assert more.num_read == plain.num_read + more.num_relabelled
    assert more.num_train == plain.num_train + more.num_relabelled
    assert all(e.success and e.metadata[ORIGIN] in failed for e in added)
    assert json.loads((tmp_path / "more" / "curation_stats.json").read_text())["num_relabelled"] == len(added)
    assert ids(tmp_path / "more" / "relabelled.jsonl") == [e.id for e in added]
    again = curated("again", hindsight=True, environment=GRID, replay_path=str(more.train), deduplicate=True)
    assert again.num_train == more.num_train


@pytest.mark.parametrize("seed", range(3))
def test_a_failure_and_what_was_made_of_it_in_hindsight_stay_on_one_side(
    wandered: Path, tmp_path: Path, seed: int
) -> None:
    fields = {"hindsight": True, "environment": GRID, "validation_split": 0.3, "seed": seed}
    config = {"path": str(wandered), "output_dir": str(tmp_path)} | fields
    result = curate(config_from_dict(CurateConfig, config))
    train, held_out = (list(read_episodes(str(path))) for path in (result.train, result.validation))
    for here, there in ((train, held_out), (held_out, train)):
        assert not {e.metadata.get(ORIGIN) for e in here} & {e.id for e in there}
        assert not {task_of(e) for e in here} & {task_of(e) for e in there}
    added = [e for e in train + held_out if ORIGIN in e.metadata]
    rule = result.rules[-1]
    assert rule.rule == "validation_split"
    assert rule.reasons == {"its failed episode is on the other side": result.num_relabelled - len(added)}
    assert 0 < len(added) < result.num_relabelled
    alone = curate(config_from_dict(CurateConfig, config | {"only_success": True}), overwrite=True)
    assert not alone.rules[-1].reasons


def test_a_failure_and_what_was_made_of_it_are_no_two_sides(tmp_path: Path) -> None:
    failed = episode(0, success=False)
    copies = [episode(n, success=True, metadata={ORIGIN: "e0"}) for n in (1, 2)]
    with pytest.raises(ConfigError, match="made of its failures in hindsight, and stay on one side"):
        run(tmp_path, [failed, *copies], validation_split=0.5)
    for seed in range(8):
        result = run(tmp_path, [failed, *copies, episode(3)], validation_split=0.5, seed=seed, overwrite=True)
        assert {"e0", "e3"} & set(ids(result.train))
        assert {"e0", "e3"} & set(ids(result.validation))


def test_hindsight_refuses_what_it_does_not_know_with_its_row(wandered: Path, tmp_path: Path) -> None:
    def refused(episodes: list[Episode], environment: dict[str, Any]) -> str:
        with pytest.raises(DataError) as caught:
            run(tmp_path, episodes, hindsight=True, environment=environment)
        return str(caught.value)

    failed = [e for e in read_episodes(str(wandered)) if e.success is False][:2]
    unknown = replace(failed[1], task=None, seed=None)
    assert "in.jsonl:2: task: the episode has no task and no seed" in refused([failed[0], unknown], GRID)
    other = refused(failed, {"name": "math"})
    assert "in.jsonl:1: task: this is no task of Math" in other
    assert "mend: name the environment of these episodes" in other


def test_hindsight_needs_an_environment_that_can_say_what_was_reached(wandered: Path, tmp_path: Path) -> None:
    fields = {"path": str(wandered), "output_dir": str(tmp_path / "out"), "hindsight": True}
    with pytest.raises(ConfigError, match="hindsight asks the environment which task was solved; give environment"):
        config_from_dict(CurateConfig, fields)
    with pytest.raises(ConfigError, match="function_gym cannot say which other task an episode has solved"):
        curate(config_from_dict(CurateConfig, fields | {"environment": {"name": "function_gym"}}))
