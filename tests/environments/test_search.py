"""The search environment: its index, its world, its questions, and how answers are judged."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from understudy.environments import Step, calls, says
from understudy.environments.reading import HasReading
from understudy.environments.search import Search
from understudy.environments.search.bm25 import Index
from understudy.environments.search.environment import LEVELS, draw_path, follow, last_named, question_of
from understudy.environments.search.world import KINDS, RELATIONS, make_world, write_documents
from understudy.environments.tasks import task_key
from understudy.errors import ConfigError, EnvironmentFault

TEXTS = ("the red fox", "the blue dog and the red cat and the old bird", "a fish", "red red red")


def test_ranking_is_that_of_the_formula() -> None:
    def score(words: str, text: str) -> float:
        mean = sum(len(t.split()) for t in TEXTS) / len(TEXTS)
        total = 0.0
        for word in words.split():
            num_with = sum(word in t.split() for t in TEXTS)
            idf = math.log(1 + (len(TEXTS) - num_with + 0.5) / (num_with + 0.5))
            count = text.split().count(word)
            total += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(text.split()) / mean))
        return total

    for query in ("red", "the red bird", "fish fox", "dog red the"):
        scores = [score(query, text) for text in TEXTS]
        expected = sorted((i for i in range(4) if scores[i] > 0), key=lambda i: -scores[i])
        assert Index(TEXTS).search(query, 9) == expected
    assert Index(TEXTS).search("RED, red!", 2) == Index(TEXTS).search("red", 2) == [3, 0]
    assert Index(TEXTS).search("cow", 9) == Index([]).search("red", 9) == []


def test_every_fact_stands_in_one_document_and_in_no_first_sentence() -> None:
    world = make_world(7, 6, tuple(RELATIONS))
    documents = {document.title: document for document in write_documents(7, world, varies=True)}
    assert len({document.id for document in documents.values()}) == len(documents) == len(world) == 6 * len(KINDS)
    for entity in world.values():
        first, *facts = documents[entity.name].sentences
        assert len(facts) == len(entity.facts)
        for value in entity.facts.values():
            assert sum(value in fact for fact in facts) >= 1
            assert value not in first


def test_a_task_keeps_its_world_so_that_recorded_episodes_can_be_played_again() -> None:
    world = make_world(1, 4, tuple(RELATIONS))
    texts = [document.text for document in write_documents(1, world, varies=True)]
    assert task_key([texts, {name: entity.facts for name, entity in world.items()}]) == "ef6a040e5c04e9da"


@pytest.mark.parametrize("level", LEVELS)
def test_questions_have_as_many_hops_as_asked_for_and_the_answer_of_their_world(level: int) -> None:
    fewest, most = LEVELS[level].num_hops
    for task in Search(level=level).tasks("train")[:30]:
        world = make_world(**task["world"])
        *path, answer = follow(world, task["start"], task["path"])
        assert fewest <= len(path) <= most
        assert answer == task["answer"]
        assert len(set(path)) == len(path)
        assert task["start"] in task["question"]
        assert not any(name in task["question"] for name in path[1:])
    assert {len(task["path"]) for task in Search(level=level, num_hops=(5, 5)).tasks("train")[:5]} == {5}


def test_a_question_names_its_hops_one_inside_the_other() -> None:
    assert question_of("Lost Key", ["author", "birthplace", "river"]) == (
        "On which river does the town in which the author of Lost Key was born lie?"
    )
    world = make_world(3, 3, ("author",))
    assert draw_path(random.Random(0), world, next(n for n, e in world.items() if e.kind == "town"), 1) is None


def run(task: Any, *actions: Any) -> list[Step]:
    async def play() -> list[Step]:
        environment = Search()
        return [await environment.reset(task), *[await environment.step({"agent": action}) for action in actions]]

    return asyncio.run(play())


@pytest.fixture(scope="module")
def task() -> Any:
    return next(task for task in Search().tasks("train") if task["path"] == ["author"])


def test_the_tools_find_and_read(task: Any) -> None:
    steps = run(task, calls("search", query=task["start"]), calls("search", query="xyzzy"), calls("read", id="d1"))
    found, nothing, missing = (step.observations["agent"].messages[0].text() for step in steps[1:])
    assert len(found.splitlines()) <= 3
    id, _, text = found.splitlines()[0].partition(": ")
    assert text.startswith(task["start"])
    assert task["answer"] not in found
    assert nothing == "no document has any of these words"
    assert missing == "Error: there is no document 'd1'"
    assert task["answer"] in run(task, calls("read", id=id))[1].observations["agent"].messages[0].text()


def test_the_tool_read_is_not_taken_for_reading_conversations() -> None:
    environment = Search()
    assert not isinstance(environment, HasReading)
    assert [tool.name for tool in environment.tools] == ["search", "read"]


def test_the_last_name_of_the_right_kind_is_the_answer(task: Any) -> None:
    right, wrong = task["answer"], "Nobody Atall"
    world = make_world(**task["world"])
    other = next(name for name, entity in world.items() if entity.kind == "person" and name != right)
    for text, success in (
        (right, True),
        (f"{task['start']} was written by {right.upper()}.", True),
        (f"Not {other} but {right}, who was born in {next(n for n, e in world.items() if e.kind == 'town')}", True),
        (f"{right} or {other}", False),
        (wrong, False),
        ("", False),
    ):
        step = run(task, says(text))[-1]
        assert (step.terminated, step.success) == (True, {"agent": success}), text
    assert last_named("in Oakwick, not Oak", {"Oak", "Oakwick"}) == "Oak"
    assert last_named("by Ada Berg", {"Berg", "Ada Berg"}) == "Ada Berg"


def test_bad_settings_and_a_task_of_another_world_are_refused(task: Any) -> None:
    for arguments in ({"level": 9}, {"num_hops": (0, 1)}, {"num_hops": (3, 2)}, {"num_hops": (1, 7)}):
        with pytest.raises(ConfigError):
            Search(**arguments)
    with pytest.raises(EnvironmentFault, match="in the world of this seed"):
        run(task | {"answer": "Somebody Else"})
