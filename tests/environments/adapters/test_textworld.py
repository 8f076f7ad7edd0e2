"""TextWorld's own games: made from seeds, of its challenges, and from files."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.environments import SPLITS, Observation, says, split_of, task_key
from understudy.environments.base import ExpertStuck
from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import Message

from .collecting import curated
from .playing import played, said

textworld = pytest.importorskip("textworld", reason="needs pip install 'understudy[textworld]' and a C compiler")

pytestmark = pytest.mark.filterwarnings("ignore:Game .* is not fully supported")
"""TextWorld silences what its interpreter says of games that it does not know, and pytest undoes that."""

QUEST = {"arguments": {"nb_rooms": 3, "nb_objects": 5, "quest_length": 3}}
CHALLENGES = {
    "tw-simple": {"rewards": "dense", "goal": "brief"},
    "tw-cooking": {"recipe": 1, "take": 1, "go": 6, "open": True, "cut": True},
    "tw-coin_collector": {"level": 3},
    "tw-treasure_hunter": {"level": 3},
}


def made(arguments: dict[str, Any]) -> Any:
    return registry.create("environments", "textworld", arguments)


async def won(environment: Any, task: Any) -> tuple[bool, float]:
    """Return whether the expert has won the game of a task, and the points that it earned."""
    expert, points = environment.expert("agent"), 0.0
    step = await environment.reset(task)
    while not step.is_over:
        step = await environment.step({"agent": expert(step.observations["agent"])})
        points += step.rewards["agent"].value
    await environment.close()
    return step.success["agent"], points


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two games of TextWorld, one compiled and one described only."""
    folder = tmp_path_factory.mktemp("games")
    for seed in (1, 2):
        options = textworld.GameOptions()
        options.seeds, options.path = seed, str(folder / f"{seed}.z8")
        textworld.make(options)
    (folder / "2.z8").unlink()
    return folder


def test_the_agent_reads_what_the_game_says_and_no_more() -> None:
    (episode,) = played("textworld", QUEST | {"max_steps": 2}, lambda _: says("inventory\n"), num=1)
    (_, told), (_, opening), *_, (_, carried) = said(episode)
    assert told.startswith("Play the game: write one command and nothing else")
    assert opening[:1].isalpha()
    assert "\n\n-= " in opening
    assert not {"$", ">"} & set(opening)
    assert carried.startswith("You are carrying")
    assert (episode.success, episode.reward, episode.stop_reason) == (False, 0.0, "max_steps")
    assert "look" in episode.trajectories[0].turns[0].annotations["legal_actions"]


def test_the_game_answers_what_it_does_not_understand() -> None:
    (episode,) = played("textworld", QUEST | {"max_steps": 1}, lambda _: says("sing"), num=1)
    assert said(episode)[3] == ("user", "That's not a verb I recognise.")


def test_the_walkthrough_wins_games_of_every_seed() -> None:
    environment = made(QUEST)
    assert [asyncio.run(won(environment, task)) for task in environment.tasks("test")[:5]] == [(True, 1.0)] * 5


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_the_walkthrough_wins_the_challenges(challenge: str) -> None:
    environment = made({"challenge": challenge, "arguments": CHALLENGES[challenge]})
    is_won, points = asyncio.run(won(environment, environment.tasks("train")[0]))
    assert is_won
    assert points >= 1


def test_the_expert_finds_a_way_from_where_others_have_led() -> None:
    environment = made(QUEST)
    expert = environment.expert("agent")

    async def wander() -> bool:
        step = await environment.reset({"seed": 3})
        for turn in range(60):
            observation: Observation = step.observations["agent"]
            legal = observation.legal_actions or ()
            others = says(legal[turn % len(legal)])
            step = await environment.step({"agent": others if turn < 10 else expert(observation)})
            if step.is_over:
                break
        await environment.close()
        return bool(step.success["agent"])

    assert asyncio.run(wander())


def test_a_task_is_a_seed_that_decides_the_episode() -> None:
    def second(observation: Observation) -> Message:
        return says((observation.legal_actions or ("look",))[-1])

    first, again = (played("textworld", QUEST | {"max_steps": 6}, second, num=3) for _ in range(2))
    assert [e.error for e in first] == [None] * 3
    assert [said(e) for e in first] == [said(e) for e in again]
    assert len({said(e)[1] for e in first}) == 3


def test_splits_do_not_overlap() -> None:
    environment = made({})
    keys = [{task_key(task) for task in environment.tasks(split)[:100]} for split in SPLITS]
    assert len(set.union(*keys)) == 300


def test_games_are_played_from_their_files(games: Path) -> None:
    environment = made({"games": str(games)})
    tasks = [task for split in SPLITS for task in environment.tasks(split)]
    assert sorted(Path(task["game"]).name for task in tasks) == ["1.z8", "2.json"]
    assert all(task in environment.tasks(split_of(task)) for task in tasks)
    assert [asyncio.run(won(environment, task)) for task in tasks] == [(True, 1.0)] * 2
    assert asyncio.run(won(made({"games": [str(games / "2.json")]}), None)) == (True, 1.0)


def test_nothing_is_left_of_a_game_that_was_made() -> None:
    environment = made(QUEST)
    asyncio.run(environment.reset({"seed": 1}))
    folder = Path(environment._folder.name)
    assert (folder / "game.z8").is_file()
    asyncio.run(environment.close())
    assert not folder.exists()
    with pytest.raises(EnvironmentFault, match="reset"):
        asyncio.run(environment.step({"agent": says("look")}))


def test_before_a_game_the_expert_is_stuck() -> None:
    with pytest.raises(ExpertStuck):
        made(QUEST).expert("agent")(Observation())


def test_the_walkthroughs_are_collected_and_curated(tmp_path: Path) -> None:
    settings = ("environment.name=textworld", "environment.arguments.arguments.quest_length=2")
    assert [episode.success for episode in curated(tmp_path, *settings, num=2)] == [True] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"arguments": {"num_rooms": 3}}, "textworld has no 'num_rooms'. Did you mean 'nb_rooms'"),
        ({"arguments": {"nb_rooms": 0}}, "arguments.nb_rooms is 0; give a whole number from 1 up"),
        ({"challenge": "tw-cook"}, "has no 'tw-cook'. Did you mean 'tw-cooking'"),
        ({"challenge": "tw-coin_collector"}, "arguments of tw-coin_collector: .* required: --level"),
        ({"challenge": "tw-cooking", "arguments": {"go": 5}}, "invalid choice: 5"),
        ({"challenge": "tw-cooking", "arguments": {"spice": 5}}, "unrecognized arguments: --spice"),
        ({"games": "nowhere.z8"}, "nowhere.z8 is no game"),
        ({"games": "nowhere.ulx"}, r"nowhere.ulx is no game; give files that end in .z8 or .json"),
        ({"games": "a.z8", "challenge": "tw-simple"}, "leave challenge and arguments out, or games"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(given)


def test_a_game_that_textworld_did_not_make_is_refused(games: Path, tmp_path: Path) -> None:
    shutil.copy(games / "1.z8", tmp_path / "zork.z8")
    with pytest.raises(ConfigError, match=r"zork\.json is not beside it"):
        made({"games": str(tmp_path / "zork.z8")})


def test_a_quest_that_cannot_be_made_is_a_fault_of_the_environment() -> None:
    environment = made({"arguments": {"quest_length": 2, "quest_breadth": 5}})
    with pytest.raises(EnvironmentFault, match="textworld finds no such game"):
        asyncio.run(environment.reset({"seed": 1}))
