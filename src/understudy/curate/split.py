"""Which tasks are held out for validation: it hangs on a hash of each task, and so not on what else is in the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rules import Candidate


def held_out_tasks(candidates: Iterable[Candidate], share: float, seed: int) -> frozenset[str]:
    """Return the tasks that are held out: those whose hash with the seed lies within the share.

    So a task stays on its side when the data grows. Where that would leave one side empty, the task whose hash is
    nearest to the edge changes sides; a single task cannot be split and is trained on. Sides are filled by episodes
    that stand for themselves: what was added in hindsight beside its failed episode may still be left out.
    """
    candidates = list(candidates)
    places = {candidate.task: _place(candidate.task, seed) for candidate in candidates}
    known = {candidate.id for candidate in candidates}
    own = {candidate.task for candidate in candidates if candidate.origin not in known}
    if not share or len(own) < 2:
        return frozenset()
    held_out = {task for task, place in places.items() if place < share}
    if not held_out & own:
        held_out.add(min(own, key=places.__getitem__))
    elif own <= held_out:
        held_out.remove(max(own, key=places.__getitem__))
    return frozenset(held_out)


def _place(task: str, seed: int) -> float:
    """Return a task's place between 0 and 1."""
    digest = hashlib.sha256(f"{seed}/{task}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
