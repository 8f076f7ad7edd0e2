"""The debate: what the rule judge counts, that its optimum is one, and judges that are models and may fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import Any

import pytest

from tests.openai_server import OpenAIServer
from understudy.collect import Play, play_episode
from understudy.environments import Step, says
from understudy.environments.debate import Debate
from understudy.environments.debate.rules import Item, Speech, best_items, counted, optimum, points
from understudy.environments.judge import read_points
from understudy.errors import ConfigError
from understudy.policies import Policy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import Episode

PRO = (Item("jobs", 3), Item("rents", 1), Item("audit", 2, "noise"))
CONTRA = (Item("noise", 3), Item("sleep", 1), Item("map", 2, "jobs"))
TASK = {
    "motion": "Oakwick should build a tram.",
    "briefs": {
        side: [{"word": i.word, "worth": i.worth, "against": i.against} for i in brief]
        for side, brief in (("pro", PRO), ("contra", CONTRA))
    },
}


def run(*actions: dict[str, str], **arguments: Any) -> list[Step]:
    async def play() -> list[Step]:
        environment = Debate(level=1, **arguments)
        steps = [await environment.reset(TASK)]
        for action in actions:
            steps.append(await environment.step({side: says(text) for side, text in action.items()}))
        return steps

    return asyncio.run(play())


def play(environment: Debate, number: int, pro: Policy, contra: Policy) -> Episode:
    async def played() -> Episode:
        which = Play(id=f"d{number}", task=environment.tasks("test")[number])
        try:
            return await play_episode(environment, {"pro": pro, "contra": contra}, which)
        finally:
            await environment.close()

    return asyncio.run(played())


def test_a_speech_counts_the_first_new_items_and_answers_only_to_what_was_heard() -> None:
    opened = [Speech("contra", 0, (CONTRA[0],))]
    assert counted("No NOISE, rents and Jobs!", PRO, [], "pro", 0, 1) == (PRO[1],)
    assert counted("jobs, rents", PRO, [], "pro", 0, 2) == (PRO[0], PRO[1])
    assert counted("the audit", PRO, opened, "pro", 0, 1) == ()
    assert counted("the audit", PRO, opened, "pro", 1, 1) == (PRO[2],)
    assert counted("jobs jobs rents", PRO, [Speech("pro", 0, (PRO[0],))], "pro", 1, 1) == (PRO[1],)
    assert counted("audit, jobs", PRO, [], "pro", 0, 1) == ()
    assert counted("jobsite", PRO, [], "pro", 0, 1) == ()


@pytest.mark.parametrize("seed", range(20))
def test_the_optimum_is_the_best_of_all_ways_to_play(seed: int) -> None:
    rng = random.Random(seed)
    theirs = [Item(f"t{i}", 1) for i in range(4)]
    heard = [Speech("contra", turn, tuple(rng.sample(theirs, 2))) for turn in (1, 3)]
    brief = tuple(Item(f"p{i}", rng.randint(1, 9)) for i in range(3)) + tuple(
        Item(f"a{i}", rng.randint(1, 9), rng.choice(theirs).word) for i in range(3)
    )
    limit, turns = 2, (0, 2, 4)
    best = 0
    for ways in itertools.product(itertools.combinations(brief, limit), repeat=len(turns)):
        speeches = list(heard)
        for turn, items in zip(turns, ways, strict=True):
            text = " ".join(item.word for item in items)
            speeches.append(Speech("pro", turn, counted(text, brief, speeches, "pro", turn, limit)))
        best = max(best, points(speeches, "pro"))
    silent = [*heard, *(Speech("pro", turn, ()) for turn in turns)]
    assert optimum(brief, silent, "pro", limit) == best
    assert [item.worth for item in best_items(brief, [], "pro", 0, 9)] == sorted(
        (item.worth for item in brief[:3]), reverse=True
    )


def test_sides_take_turns_and_the_one_that_earned_more_has_won() -> None:
    steps = run({"pro": "jobs"}, {"contra": "sleep"}, {"pro": "rents"}, {"contra": "Well, the map."})
    assert [sorted(step.observations) for step in steps] == [
        ["pro"],
        ["contra"],
        ["pro"],
        ["contra"],
        ["contra", "pro"],
    ]
    assert "Pro says: jobs" in steps[1].observations["contra"].messages[-1].text()
    assert "noise" not in "".join(m.text() for m in steps[0].observations["pro"].messages).split("Answers")[0]
    end = steps[-1]
    assert (end.terminated, end.stop_reason, end.success) == (True, "judged", {"pro": True, "contra": False})
    assert (end.rewards["pro"].value, end.rewards["pro"].components) == (1.0, {"points": 4.0})
    assert (end.rewards["contra"].value, end.rewards["contra"].components) == (3 / 5, {"points": 3.0})
    assert end.observations["pro"].messages[-1].text().endswith("The judge counts: pro 4, contra 3.")
    assert run({"pro": "jobs"})[-1].success == {"pro": True, "contra": False}
    assert run()[-1].success == {"pro": False, "contra": False}


def test_openings_at_once_are_not_heard_before_they_are_made() -> None:
    steps = run({"pro": "jobs", "contra": "noise"}, {"pro": "audit"}, {"contra": "map"}, simultaneous_openings=True)
    assert [sorted(step.observations) for step in steps][:3] == [["contra", "pro"], ["pro"], ["contra"]]
    assert steps[1].observations["pro"].messages[-1].text() == "Contra says: noise"
    assert steps[-1].success == {"pro": False, "contra": False}
    assert steps[-1].rewards["pro"].value == steps[-1].rewards["contra"].value == 1.0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_expert_beats_chance_from_either_side(level: int) -> None:
    environment, expert, chance = Debate(level=level), ExpertPolicy(), RandomPolicy()
    as_pro = [play(environment, n, expert, chance).trajectories[0] for n in range(40)]
    as_contra = [play(environment, n, chance, expert).trajectories[1] for n in range(40)]
    assert all(t.reward == 1.0 for t in as_pro + as_contra)
    assert sum(t.success is True for t in as_pro + as_contra) >= 76


@pytest.mark.parametrize("level", [1, 2, 3])
def test_of_two_experts_one_wins_or_none_and_each_does_at_times(level: int) -> None:
    environment = Debate(level=level)
    pairs = [play(environment, n, ExpertPolicy(), ExpertPolicy()).trajectories for n in range(40)]
    assert all(sum(t.success is True for t in pair) <= 1 for pair in pairs)
    assert min(sum(pair[i].success is True for pair in pairs) for i in (0, 1)) >= 4


def verdict(pro: Any, contra: Any) -> dict[str, Any]:
    said = "Both were brave. " + json.dumps({"pro": pro, "contra": contra})
    return {"role": "assistant", "content": said}


def judged(server: OpenAIServer, **judge: Any) -> Episode:
    settings = {"model": "m", "base_url": server.base_url, "max_retries": 2, "timeout_seconds": 5} | judge
    return play(Debate(level=1, judge=settings), 0, ExpertPolicy(), ExpertPolicy())


def test_a_model_can_judge() -> None:
    with OpenAIServer(lambda body: verdict(7, 4.5)) as server:
        episode = judged(server)
        (body,) = server.bodies
    assert [(t.reward, t.success) for t in episode.trajectories] == [(0.7, True), (0.45, False)]
    assert episode.error is None
    assert "PRO:\n" in body["messages"][1]["content"]
    assert (body["model"], body["temperature"]) == ("m", 0.0)
    assert "judge counts the first" not in episode.trajectories[0].messages()[0].text()


@pytest.mark.parametrize("fault", ["429", "500", "cut", "malformed"])
def test_a_fault_of_the_judge_that_a_retry_saves_costs_nothing(fault: str) -> None:
    with OpenAIServer(lambda body: verdict(1, 2), faults=lambda n: fault if n == 0 else None) as server:
        episode = judged(server)
    assert (episode.error, [t.success for t in episode.trajectories]) == (None, [False, True])


@pytest.mark.parametrize(
    ("reply", "faults", "reason"),
    [
        (verdict(1, 2), "400 no", "the server answered 400"),
        (verdict(1, 11), None, "verdict cannot be read"),
        ({"role": "assistant", "content": "Pro won."}, None, "verdict cannot be read"),
    ],
)
def test_a_judge_that_fails_is_an_error_and_no_side_has_lost(reply: Any, faults: str | None, reason: str) -> None:
    with OpenAIServer(lambda body: reply, faults=lambda number: faults) as server:
        episode = judged(server)
    assert reason in (episode.error or "")
    assert [(t.success, t.reward) for t in episode.trajectories] == [(None, None)] * 2


def test_a_judge_that_cannot_be_asked_at_all_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(faults=lambda number: "401 bad key") as server, pytest.raises(ConfigError, match="bad key"):
        judged(server)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Debate(judge={"model": "m"})
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        Debate(judge={"modle": "m"})


def test_a_verdict_is_the_last_object_that_gives_both_their_points() -> None:
    sides = ("pro", "contra")
    assert read_points('{"pro": 1} so {"pro": 2, "contra": 3.5}', sides) == {"pro": 2.0, "contra": 3.5}
    for text in ('{"pro": 2}', '{"pro": NaN, "contra": 1}', '{"pro": null, "contra": 1}', "{pro}", "", "[1, 2]"):
        assert read_points(text, sides) is None


def test_more_speeches_than_the_usual_limit_allows_are_refused_and_not_cut_short() -> None:
    with pytest.raises(
        ConfigError, match="num_speeches is 16, which takes 32 steps, and max_steps is 30; give max_steps"
    ):
        Debate(num_speeches=16)
    for arguments in ({"max_steps": 32}, {"turn_order": [["pro", "contra"]]}):
        assert play(Debate(num_speeches=16, **arguments), 0, ExpertPolicy(), ExpertPolicy()).stop_reason == "judged"


@pytest.mark.parametrize("arguments", [{"level": 4}, {"num_speeches": 0}, {"turn_order": ["pro", "contra", "pro"]}])
def test_bad_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Debate(**arguments)
