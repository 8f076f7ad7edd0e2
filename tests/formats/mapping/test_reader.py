"""Where messages and tools stand, and what is refused in the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from understudy.errors import ConfigError, FormatError
from understudy.formats import get_format

from .reading import ONE, Read, assistant, texts, user


class TestPlacesOfMessages:
    def test_several_places_follow_each_other(self, read: Read) -> None:
        yaml = """
            messages:
              - {path: instruction, role: system}
              - {path: context, parse: json, context: all}
              - answer
            """
        row = {
            "instruction": "be brief",
            "context": json.dumps([user(), assistant(), user()]),
            "answer": assistant("yes"),
        }
        episode = read(yaml, row)
        roles = ["system", "user", "assistant", "user", "assistant"]
        assert [role for role, _ in texts(episode)] == roles
        assert [turn.weight for turn in episode.trajectories[0].turns] == [0.0, 1.0]
        assert episode.metadata == {}

    def test_the_first_messages_may_be_context(self, read: Read) -> None:
        row = {"m": [assistant(), user(), assistant(), user(), assistant()]}
        turns = read("messages: {path: m, context: 3}", row).trajectories[0].turns
        assert [turn.weight for turn in turns] == [0.0, 0.0, 1.0]

    def test_an_optional_place_may_be_absent_and_tools_then_stay_in_the_metadata(self, read: Read) -> None:
        row = {"tools": [{"name": "f"}], "won": False}
        episode = read("messages: {path: m, optional: true}\ntools: tools\nsuccess: won", row)
        assert episode.trajectories[0].turns == ()
        assert episode.metadata == {"tools": [{"name": "f"}]}
        assert episode.success is False

    @pytest.mark.parametrize(
        ("source", "row", "error"),
        [
            ("[a.m]", {}, "a.m: the row has no messages here"),
            ("[{path: [m, n]}]", {}, "m or n: the row has no messages here"),
            ("[m]", {"m": "hi"}, "m: this is text, and the mapping names no role for it"),
            ("[m]", {"m": 3}, "m: messages are a list, not a number"),
            ("[{path: m, parse: json}]", {"m": "["}, "m: messages as text that is not JSON"),
            ("[m, n]", {"m": [[], []], "n": [[], []]}, "n: two places hold lists of conversations"),
            ("[m, n]", {"m": [], "n": []}, "m: there is no message (mend: leave the row out"),
        ],
    )
    def test_a_place_without_messages_is_an_error(
        self, read: Read, source: str, row: dict[str, Any], error: str
    ) -> None:
        with pytest.raises(FormatError) as caught:
            read(f"messages: {source}", row)
        assert str(caught.value).startswith(error)

    def test_a_row_that_is_no_object_is_refused(self, read: Read) -> None:
        with pytest.raises(FormatError, match="a row is an object, not a list"):
            read("messages: m", [])  # type: ignore[arg-type]


class TestTools:
    TOOLS: ClassVar = {"airline": [{"name": "book", "parameters": {"type": "dict"}}]}

    def test_tools_stand_in_the_row_or_in_json_text(self, read: Read) -> None:
        for tools in (self.TOOLS["airline"], json.dumps(self.TOOLS["airline"])):
            trajectory = read("messages: m\ntools: [x, t]", {"m": [user()], "x": [], "t": tools}).trajectories[0]
            assert [tool.name for tool in trajectory.tools()] == ["book"]

    def test_a_file_is_relative_to_the_mapping(self, read: Read, tmp_path: Path) -> None:
        (tmp_path / "tools.json").write_text(json.dumps(self.TOOLS))
        trajectory = read("messages: m\ntools: {file: tools.json, path: airline}", {"m": [user()]}).trajectories[0]
        assert trajectory.tools()[0].parameters == {"type": "object"}

    def test_a_file_named_as_an_option_is_relative_to_the_working_directory(
        self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "t.json").write_text(json.dumps({"retail": [{"name": "ship"}]}))
        monkeypatch.chdir(elsewhere)
        yaml = "messages: m\ntools: {file: tools.json, path: airline}"
        episode = read(yaml, {"m": [user()]}, "?tools.file=t.json&tools.path=retail")
        assert [tool.name for tool in episode.trajectories[0].tools()] == ["ship"]

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (None, r"cannot read .*tools.json: No such file.*\?tools.file=PATH, or go without tools"),
            ("{", "is not JSON"),
            ('{"retail": []}', "holds nothing at airline"),
            ('{"airline": [{}]}', r"tools.json: tools\[0\]: a tool needs a name"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_an_error_before_any_row(
        self, read: Read, tmp_path: Path, content: str | None, error: str
    ) -> None:
        if content is not None:
            (tmp_path / "tools.json").write_text(content)
        with pytest.raises(ConfigError, match=error):
            read("messages: m\ntools: {file: tools.json, path: airline}", {"m": ONE})

    def test_tools_can_be_turned_off(self, read: Read) -> None:
        episode = read("messages: m\ntools: {file: missing.json}", {"m": [user()]}, "?tools=null")
        assert episode.trajectories[0].tools() == ()


class TestTheFileItself:
    @pytest.mark.parametrize(
        ("yaml", "error"),
        [
            ("messages: m\nrewad: r", "mapping.yaml:2: rewad: unknown key. Did you mean 'reward'?"),
            ("messages: m\nmessage: {contents: x}", "contents: unknown key. Did you mean 'message.content'?"),
            ("reward: r", "messages: is required"),
            ("messages: a..b", "is not a path"),
            ("messages: m\nid: {path: a, value: b}", "give exactly one of path, text and value"),
            ("messages: m\nid: {}", "give exactly one of path, text and value"),
            ("messages: m\npolicy: {path: a, match: 'x'}", "put what the value is into a group"),
            ("messages: m\npolicy: {path: a, match: '('}", "not a regular expression"),
            ("messages: m\nmessage: {kind: type}", "kind and kinds belong together"),
            ("messages: {path: m, context: -1}", "a number of messages is 0 or more"),
            ("messages: m\ntools: {}", "give path (within the row), or file"),
            ("messages: m\nid: {text: '{a..b}'}", "is not a path"),
        ],
    )
    def test_what_is_written_wrongly_is_refused_with_its_place(self, read: Read, yaml: str, error: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read(yaml, {"m": ONE})
        assert error in str(caught.value)

    def test_options_override_keys_and_are_checked_like_them(self, read: Read) -> None:
        row = {"m": ONE, "a": "x", "b": "y"}
        assert read("messages: m\nenvironment: a", row, "?environment=b").environment == "y"
        with pytest.raises(ConfigError, match="Did you mean 'environment'"):
            read("messages: m", row, "?enviroment=b")

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read"):
            get_format("nowhere.yaml")

    def test_a_mapping_only_reads(self, read: Read, tmp_path: Path) -> None:
        episode = read("messages: m", {"m": [user(), assistant()]})
        with pytest.raises(FormatError, match="can only be read"):
            get_format(str(tmp_path / "mapping.yaml")).encode(episode)
