"""The page of an evaluation: complete, self-contained, and safe whatever the episodes say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.evaluate.playing import run, skilled
from understudy.environments import Observation, Step
from understudy.environments.math import Math
from understudy.evaluate import outcome_of
from understudy.evaluate.report import shown_estimate
from understudy.evaluate.report.charts import Series, histogram
from understudy.evaluate.report.episodes import FOLDED_CHARACTERS, MAX_CHARACTERS, side_by_side
from understudy.evaluate.report.tasks import TaskResult, most_telling
from understudy.policies import Action, Context, Policy
from understudy.types import Episode, ImagePart, Message, TextPart, Tool, ToolCall, Trajectory, Turn

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = (
    "</li></details><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)' {{ 7*7 }} &amp;\x00\ud800"
)


class Reader(HTMLParser):
    """Reads a page as a browser would, and holds its structure against the rules."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


class Hostile(Math):
    """Says what no page should run."""

    async def reset(self, task: Any = None, *, seed: int | None = None) -> Step:
        step = await super().reset(task, seed=seed)
        (observation,) = step.observations.values()
        tool = Tool.from_openai({"name": "t", "description": HOSTILE, "parameters": {"properties": {HOSTILE: {}}}})
        messages = (*observation.messages, Message("user", HOSTILE, name=HOSTILE))
        return Step({"agent": Observation(messages, tools=(tool,))})

    def on_text(self, text: str) -> Any:
        if "fail" in text:
            raise OSError(HOSTILE)
        return super().on_text(text)


class HostilePolicy(Policy):
    name = HOSTILE

    async def act(self, context: Context) -> Action:
        call = ToolCall("t", {HOSTILE: HOSTILE})
        text = "fail " * (len(context.messages[1].text()) % 2) + HOSTILE
        return Action(Message("assistant", text, reasoning_content=HOSTILE, tool_calls=(call,) * (context.turn == 0)))


def page_of(folder: Path, **fields: Any) -> tuple[str, Reader]:
    page = run(folder, **fields).html_path.read_text()
    return page, Reader(page)


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page, read = page_of(tmp_path / "out", baseline=skilled(0.3), samples_per_task=2)
    assert {tag for tag, _ in read.tags} & {"script", "link", "iframe", "img", "object", "base"} == set()
    for _, attributes in read.tags:
        assert not attributes.keys() & {"src", "srcset", "style", "action", "data"}
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_every_plot_is_well_formed_and_shows_what_it_is_about(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path / "out", baseline=skilled(0.3), samples_per_task=2)
    plots = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(plots) == 4  # intervals, pass@k, rewards, turns
    for plot in plots:
        ElementTree.fromstring(plot)
        assert "before" in plot
        assert "after" in plot
        assert "nan" not in plot


def test_the_environments_of_a_mix_are_told_apart(tmp_path: Path) -> None:
    sums = {"name": "math", "arguments": {"kinds": ["expression"]}}
    mix = {
        "name": "mix",
        "arguments": {"environments": {"sums": sums | {"ratio": 3}, "maze": {"name": "grid", "ratio": 1}}},
    }
    result = run(tmp_path / "out", environment=mix, baseline=skilled(0.3))
    scores = result.metrics.environments
    assert {name: one.num_episodes for name, one in scores.items()} == {"maze": 10, "sums": 30}
    assert json.loads(result.json_path.read_text())["policy"]["environments"].keys() == scores.keys()
    read = Reader(result.html_path.read_text())
    for name, one in scores.items():
        assert f"– in {name}" in read.text
        assert shown_estimate(one.success) in read.text
        assert any(f"({name})" in (attributes.get("title") or "") for _, attributes in read.tags)
    assert "– in" not in Reader(run(tmp_path / "plain").html_path.read_text()).text


@pytest.mark.parametrize("baseline", [None, skilled(0.3)])
def test_whatever_episodes_say_is_text_on_the_page(tmp_path: Path, baseline: Any) -> None:
    policy, environment = {"name": f"{__name__}:HostilePolicy"}, {"name": f"{__name__}:Hostile"}
    _, read = page_of(
        tmp_path / "out", environment=environment, policy=policy, baseline=baseline, num_tasks=8, stop_after_errors=None
    )
    assert {tag for tag, _ in read.tags} & {"script", "img"} == set()
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert read.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in read.text
    assert "OSError" in read.text


def test_tasks_whose_result_differs_come_first_with_their_episodes_side_by_side(tmp_path: Path) -> None:
    result = run(tmp_path / "out", baseline=skilled(0.5), policy=skilled(0.6), num_shown_tasks=10)
    page = result.html_path.read_text()
    read = Reader(page)
    better = result.comparison.success.num_better
    assert 0 < better < 10
    shown = re.findall(r'<details class="card task" id="task-(\d+)".*?<span class="kind">(.*?)</span>', page, re.S)
    assert len(shown) == 10
    assert [kind for _, kind in shown[:better]] == ["better than the baseline"] * better
    assert {kind for _, kind in shown[better:]} == {"solved", "not solved"}
    assert page.count('class="side before"') == page.count('class="side after"') == 10
    links = {attributes["href"] for tag, attributes in read.tags if tag == "a"}
    assert links == {f"#task-{number}" for number, _ in shown} == {f"#{id}" for id in read.ids()}


def test_the_figures_of_the_page_are_those_of_the_result(tmp_path: Path) -> None:
    result = run(tmp_path / "out", baseline=skilled(0.3))
    _, read = page_of(tmp_path / "out", baseline=skilled(0.3))
    found = result.metrics.success
    assert f"{found.value:.1%}  [{found.low:.1%}, {found.high:.1%}]" in read.text
    difference = result.comparison.success
    assert f"{difference.num_better} better" in read.text
    assert f"{100 * difference.difference:+.3g} points" in read.text
    assert "p < 0.001 (McNemar, exact)" in read.text


def test_an_evaluation_without_episodes_has_a_page_too(base: Path, tmp_path: Path) -> None:
    from tests.training import WEATHER

    loss = {"model": str(base), "data_path": str(WEATHER)}
    _, read = page_of(tmp_path / "out", environment=None, policy=None, num_tasks=None, loss=loss)
    assert "perplexity" in read.text
    assert "Task by task" not in read.text


# The parts.


def result(number: int, before: bool | None, after: bool | None) -> TaskResult:
    from understudy.evaluate.report.tasks import _kind

    sides = [
        [] if success is None else [outcome_of(Episode(f"{number}", success=success))] for success in (before, after)
    ]
    return TaskResult(number, _kind(*sides), *map(tuple, sides))


def test_lost_and_won_tasks_take_turns_before_the_others() -> None:
    results = [result(n, True, True) for n in range(5)]
    results += [result(5, False, True), result(6, False, True), result(7, True, False), result(8, False, False)]
    assert [one.number for one in most_telling(results, 6)] == [7, 5, 6, 8, 0, 1]
    assert most_telling(results, 0) == []
    many = [result(n, False, True) for n in range(20)] + results[:2]
    assert [one.kind for one in most_telling(many, 8)] == ["won"] * 6 + ["solved"] * 2


def conversation(*actions: str, **given: Any) -> Episode:
    messages: list[Message] = [Message("system", "Be good."), Message("user", "Go.")]
    for action in actions:
        messages += [Message("assistant", action), Message("user", "On.")]
    return Episode.from_messages(messages, tools=[{"name": "t"}], **given)


def test_what_both_episodes_begin_with_is_shown_once() -> None:
    shown = side_by_side(conversation("a", "b"), conversation("a", "c"))
    assert [message.text.whole for message in shown.common] == ["Be good.", "Go."]
    assert [message.text.whole for message in shown.before.trajectories[0].messages] == ["a", "On.", "b", "On."]
    assert shown.tools == (("t", "()"),)
    assert shown.after.trajectories[0].tools == ()


def test_episodes_with_other_tools_or_several_agents_have_nothing_in_common() -> None:
    other = Episode.from_messages([Message("system", "Be good.")], tools=[{"name": "u"}])
    assert side_by_side(conversation("a"), other).common == ()
    several = Episode("x", (Trajectory((), agent="a"), Trajectory((), agent="b")))
    assert side_by_side(several, several).common == ()


def test_a_rewritten_context_is_marked() -> None:
    action = Message("assistant", "a")
    turns = (
        Turn(None, (Message("user", "1"),), action),
        Turn(None, (Message("user", "2"),), action),
        Turn(0, (), action),
    )
    (shown,) = side_by_side(None, Episode("x", (Trajectory(turns),))).after.trajectories
    assert shown.breaks == {1: "a fresh context", 3: "goes on from turn 0"}


def test_long_texts_are_folded_and_very_long_ones_cut_with_what_is_missing_said() -> None:
    texts = ["x" * FOLDED_CHARACTERS, "x" * (FOLDED_CHARACTERS + 1), "x" * (MAX_CHARACTERS + 5)]
    (shown,) = side_by_side(
        None, Episode.from_messages([Message("assistant", text) for text in texts])
    ).after.trajectories
    found = [message.text for message in shown.messages]
    assert [text.beginning is None for text in found] == [True, False, False]
    assert found[2].whole.endswith("… 5 more characters")


def test_images_and_broken_arguments_are_shown_as_text() -> None:
    message = Message(
        "assistant",
        (TextPart("see "), ImagePart("data:image/png;base64," + "A" * 500)),
        tool_calls=(ToolCall("t", "{no"),),
    )
    (shown,) = side_by_side(None, Episode.from_messages([message])).after.trajectories
    assert shown.messages[0].text.whole.startswith("see [image data:image/png")
    assert len(shown.messages[0].text.whole) < 120
    assert shown.messages[0].calls[0][1].whole == "{no"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2, 2, 4], ["1", "2", "3", "4"]),
        (list(range(0, 60)), ["0–3", "4–7"]),
        ([0.0, 0.5, 1.0], ["0", "0.5", "1"]),
        ([number / 100 for number in range(100)], ["0", "0.0619"]),
        ([-3.0, 5.0], ["-3"]),
    ],
)
def test_a_histogram_counts_every_value_once(values: list[float], labels: list[str]) -> None:
    plot = str(histogram([Series("a", "after", values)]))
    titles = re.findall(r"a: (.*?): ([\d.]+)% of episodes", plot)
    assert sum(float(share) for _, share in titles) == pytest.approx(100, abs=1.5)
    assert {label for label, _ in titles} >= set(labels) - {"3"}
