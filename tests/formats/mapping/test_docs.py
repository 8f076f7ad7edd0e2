"""The worked examples of the docs do what the docs say, and the table of example mappings lists them all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from understudy.formats import get_format
from understudy.types import Message

ROOT = Path(__file__).resolve().parents[3]
MAPPINGS = ROOT / "examples" / "mappings"


def worked_examples() -> list[tuple[str, str, str]]:
    """Return (row, mapping, conversation) of each example: a block of JSON, one of YAML, and one of text."""
    page = (ROOT / "docs" / "mappings.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(json|yaml|text)\n(.*?)```", page, re.DOTALL)
    starts = [index for index, (language, _) in enumerate(blocks) if language == "json"]
    return [(blocks[k][1], blocks[k + 1][1], blocks[k + 2][1]) for k in starts]


def as_shown(message: Message) -> str:
    name = f" ({message.name})" if message.name else ""
    reasoning = [f"({message.reasoning_content})"] if message.reasoning_content else []
    calls = [f"[{call.name} {call.arguments_text()}]" for call in message.tool_calls]
    said = [message.text()] if message.text() else []
    return f"{message.role}{name}: {' '.join([*reasoning, *said, *calls])}"


@pytest.mark.parametrize(("row", "mapping", "conversation"), worked_examples())
def test_a_worked_example_reads_as_the_page_says(tmp_path: Path, row: str, mapping: str, conversation: str) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(mapping, encoding="utf-8")
    (episode,) = get_format(str(file)).decode(json.loads(row), id="x")
    assert [as_shown(message) for message in episode.trajectories[0].messages()] == conversation.splitlines()


def test_the_first_example_has_the_reward_and_keeps_what_the_page_says(tmp_path: Path) -> None:
    row, mapping, _ = worked_examples()[0]
    file = tmp_path / "mapping.yaml"
    file.write_text(mapping, encoding="utf-8")
    (episode,) = get_format(str(file)).decode(json.loads(row), id="x")
    (trajectory,) = episode.trajectories
    assert (episode.reward, episode.success, trajectory.policy) == (0.8, True, "gpt-4o")
    assert episode.metadata == {"result": {"solved": "yes"}, "model": "gpt-4o/2024-08"}
    assert trajectory.messages()[0].extra == {"at": "12:00:01"}


def test_the_table_of_mappings_names_every_mapping_and_only_those() -> None:
    page = (MAPPINGS / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\| `([\w.]+)(?::\w+)?(?:\?[^`]*)?` \|$", page, re.MULTILINE))
    assert named == {file.name for file in MAPPINGS.iterdir() if file.suffix in (".yaml", ".py")}
