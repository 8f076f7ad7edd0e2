"""Entries of LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import list_files, read_episodes, write_rows
from understudy.types import ImagePart, Message

ENTRIES: dict[str, Any] = {
    "merged_gym_sft": {
        "file_name": "gym.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
    },
    "renamed": {
        "file_name": "renamed.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "system": "rules", "tools": "functions", "images": "pictures"},
        "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "U", "assistant_tag": "A", "function_tag": "F"},
    },
    "chat": {
        "file_name": "chat.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "openai": {"file_name": "chat.jsonl", "formatting": "openai"},
    "alpaca": {"file_name": "alpaca.json"},
    "asked": {"file_name": "asked", "columns": {"prompt": "question", "response": "answer", "system": "rules"}},
    "online": {"hf_hub_url": "a/b"},
    "pairs": {"file_name": "x.json", "ranking": True, "columns": {"chosen": "chosen", "rejected": "rejected"}},
    "kto": {"file_name": "x.json", "columns": {"kto_tag": "label"}},
    "typo": {"file_name": "x.json", "formating": "sharegpt"},
    "typo_column": {"file_name": "x.json", "columns": {"respnse": "a"}},
    "typo_tag": {"file_name": "x.json", "formatting": "sharegpt", "tags": {"user_tga": "u"}},
    "other": {"file_name": "x.json", "formatting": "parquet"},
    "nameless": {"formatting": "alpaca"},
    "odd": {"file_name": "x.json", "columns": [1]},
}


@pytest.fixture
def info(tmp_path: Path) -> str:
    (tmp_path / "dataset_info.json").write_text(json.dumps(ENTRIES))
    return str(tmp_path / "dataset_info.json")


def said(info: str, name: str) -> list[Message]:
    (episode,) = read_episodes(f"{info}#{name}")
    return episode.trajectories[0].messages()


def test_a_plain_entry_is_read_beside_its_file(info: str, tmp_path: Path) -> None:
    row = {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        "system": "s",
        "tools": "[]",
    }
    write_rows(tmp_path / "gym.json", [row])
    assert [one.role for one in said(info, "merged_gym_sft")] == ["system", "user", "assistant"]
    reader = read_episodes(f"{info}#merged_gym_sft")
    assert reader.detection is not None
    assert reader.detection.reason == f"sharegpt: as {info} declares 'merged_gym_sft'"


def test_an_entry_may_be_a_list_of_one_source_and_its_files_are_known(info: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "chat.jsonl", [{"messages": [{"role": "user", "content": "q"}]}])
    assert len(list(read_episodes([f"{info}#openai"]))) == 1
    assert list_files(f"{info}#openai") == list_files([f"{info}#openai"]) == [str(tmp_path / "chat.jsonl")]
    with pytest.raises(FormatError, match="no such file"):
        list_files(f"{info}#alpaca")


def test_columns_and_tags_may_have_other_names(info: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    talk = [
        {"who": "U", "what": "<image>q"},
        {"who": "F", "what": '{"name": "f", "arguments": {}}'},
        {"who": "A", "what": "a"},
    ]
    row = {"talk": talk, "rules": "s", "functions": '[{"name": "f"}]', "pictures": ["a.png"], "system": "unnamed"}
    write_rows(tmp_path / "renamed.jsonl", [row])
    (episode,) = read_episodes(f"{info}#renamed")
    system, user, call, answer = episode.trajectories[0].messages()
    assert (system.content, call.tool_calls[0].name, answer.role) == ("s", "f", "assistant")
    assert user.content[0] == ImagePart(str(tmp_path / "a.png"))  # type: ignore[index]
    assert episode.trajectories[0].tools()[0].name == "f"
    assert episode.metadata == {"system": "unnamed"}, "a column that the entry does not name is not used"


@pytest.mark.parametrize("name", ["chat", "openai"])
def test_openai_messages_are_a_matter_of_tags(name: str, info: str, tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    write_rows(tmp_path / "chat.jsonl", [{"messages": messages}])
    assert [message.to_openai() for message in said(info, name)] == messages


def test_alpaca_is_the_default_and_its_columns_may_have_other_names(info: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "alpaca.json", [{"instruction": "i", "input": "j", "output": "o", "system": "unnamed"}])
    assert said(info, "alpaca") == [Message("user", "i\nj"), Message("assistant", "o")]
    (tmp_path / "asked").mkdir()
    write_rows(tmp_path / "asked" / "a.jsonl", [{"question": "q", "answer": "a", "rules": "r", "input": "unnamed"}])
    assert said(info, "asked") == [Message("system", "r"), Message("user", "q"), Message("assistant", "a")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("online", "download it"),
        ("pairs", "no demonstrations"),
        ("kto", "no demonstrations"),
        ("typo", "Did you mean 'formatting'"),
        ("typo_column", "Did you mean 'response'"),
        ("typo_tag", "Did you mean 'user_tag'"),
        ("other", "unknown formatting 'parquet'"),
        ("nameless", "the file is missing"),
        ("odd", "expected an object, not a list"),
        ("merged_gym", "Did you mean 'merged_gym_sft'"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused_with_the_mend(name: str, said: str, info: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_episodes(f"{info}#{name}")
    assert said in str(caught.value)
    assert caught.value.file == info


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {}, "a": {}}', "\ufeff{}"])
def test_a_broken_dataset_info_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset_info.json"
    file.write_text(text)
    with pytest.raises(FormatError):
        read_episodes(f"{file}#a")
    with pytest.raises(FormatError):
        read_episodes(f"{tmp_path}/absent.json#a")


def test_a_file_with_a_hash_in_its_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.json#b").write_text('{"messages": [{"role": "user", "content": "q"}]}')
    assert len(list(read_episodes(tmp_path / "a.json#b"))) == 1
