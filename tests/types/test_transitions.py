"""Steps of an agent as (s, a, s', r)."""

from __future__ import annotations

from understudy.formats import get_format
from understudy.types import Message, Trajectory, Transition, Turn


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str) -> Message:
    return Message("assistant", text)


def test_they_are_those_of_the_observations_and_actions_that_the_row_has() -> None:
    texts = [["q"], ["q", "a", "o"], ["q", "a", "o", "b", "end"]]
    roles = ("user", "assistant")
    observations = [
        {"messages": [{"role": roles[k % 2], "content": text} for k, text in enumerate(shown)], "done": len(shown) == 5}
        for shown in texts
    ]
    actions = [{"role": "assistant", "content": text} for text in ("a", "b")]
    row = {
        "trajectories": [{"observations": observations, "actions": actions, "rewards": [{"value": 1}, {"value": 2}]}]
    }
    (episode,) = get_format("trajectories").decode(row, id="x")
    found = list(episode.trajectories[0].transitions())
    assert [[message.text() for message in step.state] for step in found] == texts[:2]
    assert [(s.action.text(), s.reward, s.is_last) for s in found] == [("a", 1, False), ("b", 2, True)]
    assert [[message.text() for message in step.next_observation] for step in found] == [["o"], ["end"]]


def test_forks_rewritten_contexts_and_labels() -> None:
    turns = (
        Turn(None, (user("q"),), says("a"), reward=1.0),
        Turn(None, (user("q"),), says("expert"), annotations={"label_of": 0}),
        Turn(0, (user("o"),), says("b")),
        Turn(0, (user("other"),), says("c")),
        Turn(None, (user("anew"),), says("d")),
    )
    assert list(Trajectory(turns).transitions()) == [
        Transition((user("q"),), says("a"), (user("o"),), 1.0, False),
        Transition((user("q"), says("a"), user("o")), says("b"), (user("anew"),), None, False),
        Transition((user("q"), says("a"), user("other")), says("c"), (user("anew"),), None, False),
        Transition((user("anew"),), says("d"), (), None, True),
    ]
