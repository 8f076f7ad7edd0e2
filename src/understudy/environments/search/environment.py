"""The search environment: a question, a search tool, a reading tool, and an answer in words."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from understudy.environments.base import Observation
from understudy.environments.tool_environment import ToolEnvironment, calls, says, system, user
from understudy.environments.toolbox import Toolbox, ToolError
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .bm25 import Index
from .world import KINDS, RELATIONS, Document, Entity, make_world, values_of, write_documents

INSTRUCTIONS = "Find the answer: search, and read what you find. Then reply with the answer alone."

TITLE_WEIGHT = 3
"""A word in a title counts as often in the ranking as so many in the text."""

NO_RESULTS = "no document has any of these words"


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard questions are.

    Args:
        num_hops: fewest and most documents that a question needs.
        size: entities of each of the four kinds in the world.
        relations: what is known of them, and can be asked.
        varies: the documents state facts in several ways and in any order.
        num_results: how many documents a search finds.
    """

    num_hops: tuple[int, int]
    size: int
    relations: tuple[str, ...] = tuple(RELATIONS)
    varies: bool = True
    num_results: int = 3


LEVELS = {
    1: Difficulty((1, 1), 3, ("author", "birthplace", "founder", "mayor"), varies=False, num_results=2),
    2: Difficulty((1, 2), 6),
    3: Difficulty((2, 3), 15),
    4: Difficulty((3, 4), 40, num_results=5),
}

MAX_HOPS = 6


@dataclass(slots=True)
class SearchState:
    """What has been found and read, and what was answered.

    `path` names the entities to be read about, in order; `candidates` are all names that could be the answer.
    """

    documents: dict[str, Document]
    index: Index
    path: tuple[str, ...]
    answer: str
    candidates: set[str]
    found: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    given: str | None = None


class Search(ToolEnvironment[SearchState]):
    """Questions over a collection of documents that is made up anew for every task.

    The agent calls ``search(query)``, which gives ids and first sentences, and ``read(id)``, which gives a document.
    Its first message without a call is its answer; of the names in it that could be one, the last counts.

    Args:
        level: 1 (one document to be read, in a small world: quick to learn) to 4 (three or four, among 160).
        num_hops: fewest and most documents that a question needs, other than the level has it.
        num_tasks, task_seed, max_steps: see `ToolEnvironment`.

    Raises:
        ConfigError: the level is unknown, or the range is empty.
    """

    def __init__(
        self,
        *,
        level: int = 2,
        num_hops: tuple[int, int] | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        self.difficulty = LEVELS[level]
        if num_hops is not None:
            if len(num_hops) != 2 or not 1 <= num_hops[0] <= num_hops[1] <= MAX_HOPS:
                raise ConfigError(f"num_hops is {list(num_hops)}; give the fewest and the most, from 1 to {MAX_HOPS}")
            self.difficulty = replace(self.difficulty, num_hops=(num_hops[0], num_hops[1]))
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)

    def make_toolbox(self) -> Toolbox:
        """Return search and read."""

        # It is no method, because an environment with a method of this name is one that reads conversations.
        def read(id: str) -> str:
            """Read a document.

            Args:
                id: the document's id
            """
            return self.document(id)

        return Toolbox(self.search, read)

    def search(self, query: str) -> str:
        """Search the documents.

        Args:
            query: the words to search for
        """
        state = self.state
        documents = list(state.documents.values())
        found = [documents[position] for position in state.index.search(query, self.difficulty.num_results)]
        state.found.update(document.id for document in found)
        return "\n".join(f"{document.id}: {document.sentences[0]}" for document in found) or NO_RESULTS

    def document(self, id: str) -> str:
        """Return the text of a document, and note that it was read.

        Raises:
            ToolError: there is none of this id.
        """
        document = self.state.documents.get(id)
        if document is None:
            raise ToolError(f"there is no document {id!r}")
        self.state.read.add(id)
        return document.text

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a question with its answer, and what makes its world."""
        difficulty = self.difficulty
        while True:
            seed = rng.randrange(2**32)
            world = make_world(seed, difficulty.size, difficulty.relations)
            start = rng.choice(list(world))
            path = draw_path(rng, world, start, rng.randint(*difficulty.num_hops))
            if path is not None:
                return {
                    "question": question_of(start, path),
                    "answer": follow(world, start, path)[-1],
                    "start": start,
                    "path": path,
                    "world": {"seed": seed, "size": difficulty.size, "relations": list(difficulty.relations)},
                    "varies": difficulty.varies,
                }

    def begin(self, task: Any) -> tuple[SearchState, tuple[Message, ...]]:
        """Make the world, write its documents, and ask the question."""
        world = make_world(**task["world"])
        *path, answer = follow(world, task["start"], task["path"])
        if answer != task["answer"]:
            raise ValueError(f"the answer is {answer!r} in the world of this seed")
        documents = write_documents(task["world"]["seed"], world, varies=task["varies"])
        index = Index([" ".join([d.title] * (TITLE_WEIGHT - 1) + [d.text]) for d in documents])
        candidates = values_of(world, task["path"][-1])
        state = SearchState({d.id: d for d in documents}, index, tuple(path), answer, candidates)
        return state, (system(INSTRUCTIONS), user(task["question"]))

    def on_text(self, text: str) -> str | None:
        """Take the last name of the right kind in the text as the answer."""
        self.state.given = last_named(text, self.state.candidates)
        self.finish("answered")
        return None

    def is_success(self) -> bool:
        """Say whether the answer is right."""
        return self.state.given == self.state.answer

    def decide(self, observation: Observation) -> Message:
        """Search for each entity of the path by its name and read about it, then say the answer."""
        state = self.state
        for name in state.path:
            id = next(document.id for document in state.documents.values() if document.title == name)
            if id not in state.found:
                return calls("search", query=name)
            if id not in state.read:
                return calls("read", id=id)
        return says(state.answer)


def draw_path(rng: random.Random, world: Mapping[str, Entity], start: str, num_hops: int) -> list[str] | None:
    """Return relations that lead from an entity to ever new ones; None where the way that was tried has no end."""
    path: list[str] = []
    seen = [start]
    for hop in range(num_hops):
        facts = world[seen[-1]].facts
        is_last = hop == num_hops - 1
        open_ends = [
            relation
            for relation, value in facts.items()
            if value not in seen and (is_last or (RELATIONS[relation].target in KINDS and world[value].facts))
        ]
        if not open_ends:
            return None
        path.append(rng.choice(open_ends))
        seen.append(facts[path[-1]])
    return path


def follow(world: Mapping[str, Entity], start: str, relations: Sequence[str]) -> list[str]:
    """Return the names on the way along the relations, from `start` to the answer, both included."""
    names = [start]
    for relation in relations:
        names.append(world[names[-1]].facts[relation])
    return names


def question_of(start: str, relations: Sequence[str]) -> str:
    """Return the question that asks for what the relations lead to."""
    named = start
    for relation in relations[:-1]:
        named = RELATIONS[relation].phrase.format(x=named)
    return RELATIONS[relations[-1]].question.format(x=named)


def last_named(text: str, names: set[str]) -> str | None:
    """Return which of the names stands last in a text, as whole words in any case; of two that end there the longer."""
    ends = {
        (match.end(), len(name)): name
        for name in names
        for match in re.finditer(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)
    }
    return ends[max(ends)] if ends else None
