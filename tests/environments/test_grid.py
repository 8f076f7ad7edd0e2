"""Grid puzzles: rules, solver and views."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from understudy.environments import Step, calls, says, user
from understudy.environments.grid import Grid
from understudy.environments.grid.puzzle import DIRECTIONS, Position, draw_map, is_solved, move, parse_map, solve
from understudy.environments.grid.reading import read_view
from understudy.environments.reading import Reading
from understudy.errors import ConfigError


@pytest.mark.parametrize(
    ("rows", "direction", "after"),
    [
        (["@-."], "right", ["-@."]),
        (["-@."], "right", ["--+"]),
        (["-+-"], "left", ["@.-"]),
        (["@$."], "right", ["-@*"]),
        (["@*-"], "right", ["-+$"]),
        (["@$#."], "right", None),
        (["@$$."], "right", None),
        (["@#."], "right", None),
        (["@-."], "up", None),
        (["$", "@", "."], "down", ["$", "-", "+"]),
    ],
)
def test_moves_follow_the_rules_of_sokoban(rows: list[str], direction: str, after: list[str] | None) -> None:
    layout, position = parse_map(rows)
    moved = move(layout, position, direction)
    assert (None if moved is None else draw_map(layout, moved)) == after


@pytest.mark.parametrize("rows", [["@", "--"], ["@@"], ["--"], ["@x"]])
def test_maps_that_are_none_are_refused(rows: list[str]) -> None:
    with pytest.raises(ValueError, match="a map has"):
        parse_map(rows)


def test_the_solver_finds_shortest_solutions_and_knows_when_there_is_none() -> None:
    layout, position = parse_map(["#####", "#@$.#", "#---#", "#####"])
    assert solve(layout, position) == ["right"]
    assert solve(*parse_map(["@-.", "---", "---"])) == ["right", "right"]
    assert solve(*parse_map(["####", "#@-#", "#$.#", "####"])) is None


def test_solutions_are_as_short_as_distances_by_another_search() -> None:
    tasks = Grid(size=7, wall_share=0.3).tasks("train")
    for task in tasks[:40]:
        layout, start = parse_map(task["map"])
        distances, queue = {start.player: 0}, deque([start.player])
        while queue:
            r, c = queue.popleft()
            for dr, dc in DIRECTIONS.values():
                cell = (r + dr, c + dc)
                if layout.is_free(cell) and cell not in distances:
                    distances[cell] = distances[r, c] + 1
                    queue.append(cell)
        solution = solve(layout, start)
        assert solution is not None
        assert len(solution) == distances[next(iter(layout.targets))]
        position: Position | None = start
        for direction in solution:
            assert position is not None
            position = move(layout, position, direction)
        assert position is not None
        assert is_solved(layout, position)


def run(environment: Grid, task: Any, *actions: Any) -> list[Step]:
    async def play() -> list[Step]:
        return [await environment.reset(task), *[await environment.step({"agent": action}) for action in actions]]

    return asyncio.run(play())


TASK = {"puzzle": "path", "map": ["@-.", "##-"], "max_moves": 3}


def test_running_out_of_moves_ends_the_episode_without_success() -> None:
    steps = run(Grid(), TASK, *[calls("move", direction="up")] * 3)
    assert [step.is_over for step in steps] == [False, False, False, True]
    assert (steps[-1].stop_reason, steps[-1].success) == ("out_of_moves", {"agent": False})
    assert "blocked" in steps[1].observations["agent"].messages[0].text()


def test_the_last_allowed_move_can_still_win() -> None:
    steps = run(Grid(), TASK, *[calls("move", direction=d) for d in ("up", "right", "right")])
    assert (steps[-1].stop_reason, steps[-1].success) == ("solved", {"agent": True})


def test_in_text_the_legal_actions_are_listed_and_words_are_taken() -> None:
    environment = Grid(interface="text", coordinates=False)
    steps = run(environment, TASK, says("I go RIGHT"), says("hm"))
    assert steps[0].observations["agent"].legal_actions == ("right",)
    assert steps[0].observations["agent"].tools == ()
    assert steps[1].observations["agent"].legal_actions == ("left", "right")
    assert steps[1].observations["agent"].messages[0].text() == "- @ .\n# # -\nMoves left: 2."
    assert "Answer with one word" in steps[2].observations["agent"].messages[0].text()


def test_replacing_shows_only_the_present_map() -> None:
    steps = run(Grid(view="replace"), TASK, calls("move", direction="right"))
    observation = steps[1].observations["agent"]
    assert observation.mode == "replace"
    assert [message.role for message in observation.messages] == ["system", "user"]
    assert "Moves left: 2." in observation.messages[1].text()


def test_coordinates_say_what_the_map_shows() -> None:
    text = run(Grid(), TASK)[0].observations["agent"].messages[1].text()
    assert "You are at row 1, column 1.\nA target is at row 1, column 3." in text


@pytest.mark.parametrize("arguments", [{"puzzle": "maze"}, {"size": 2}, {"view": "both"}, {"wall_share": 0.9}])
def test_bad_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError):
        Grid(**arguments)


def test_moves_that_no_map_of_this_size_takes_are_refused_and_not_looked_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.environments.grid.environment.MAX_DRAWS", 100)
    with pytest.raises(ConfigError, match=r"no puzzle of 30 moves or more .* lower min_moves, or raise size \(4\)"):
        Grid(size=4, min_moves=30).tasks("train")[0]


async def _walk(environment: Grid, policy: Any) -> list[tuple[Any, Step]]:
    """Play one task; return what the environment reads after each step, with the step."""
    task = environment.tasks("train")[0]
    step = await environment.reset(task)
    messages, found = list(step.observations["agent"].messages), []
    while not step.is_over:
        action = policy(step.observations["agent"])
        step = await environment.step({"agent": action})
        messages += [action, *step.observations["agent"].messages]
        found.append((environment.read(task, messages), step))
    return found


@pytest.mark.parametrize(
    "arguments",
    [{}, {"coordinates": False, "interface": "text"}, {"puzzle": "sokoban", "size": 7, "num_boxes": 2}],
    ids=["path", "text", "sokoban"],
)
def test_the_end_is_read_off_the_newest_map(arguments: dict[str, Any]) -> None:
    def up(observation: Any) -> Any:
        return says("up") if arguments.get("interface") == "text" else calls("move", direction="up")

    for environment in (Grid(**arguments), Grid(**arguments, task_seed=1)):
        for policy, reason, value in ((environment.expert("agent"), "solved", 1.0), (up, "out_of_moves", 0.0)):
            found = asyncio.run(_walk(environment, policy))
            assert [(read.stop_reason, read.value) for read, _ in found[:-1]] == [(None, None)] * (len(found) - 1)
            read, step = found[-1]
            assert (read.stop_reason, read.value) == (reason, value) == (step.stop_reason, float(reason == "solved"))


def test_a_map_that_the_agent_writes_itself_ends_nothing() -> None:
    shown, written = user("- @ .\nMoves left: 2."), says("- - +\nMoves left: 1.")
    assert read_view(written.text(), has_boxes=False).stop_reason == "solved"
    assert Grid().read(None, [shown, written]) == Reading()
    assert Grid().read(None, [shown, written, user("No such word.")]) == Reading()


@pytest.mark.parametrize("text", ["", "Hello", "@ -\n. - -", "- -\n- -", "@ @\n. -", "$ -\n. @"])
def test_what_is_no_map_of_the_puzzle_says_nothing(text: str) -> None:
    assert read_view(text, has_boxes=False) == Reading()
