"""understudy tokens"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import WEATHER
from understudy.cli.main import main

REASONED = {
    "messages": [
        {"role": "user", "content": '1 < 2 & "3"?'},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "One is less."},
        {"role": "user", "content": "\nAnd é 🙂?"},
        {"role": "assistant", "content": "Нет.", "reasoning_content": "No."},
    ]
}


@pytest.fixture
def reasoned(tmp_path: Path) -> Path:
    path = tmp_path / "reasoned.jsonl"
    path.write_text(json.dumps(REASONED) + "\n")
    return path


def show(capsys, *arguments: object) -> str:
    assert main(["tokens", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def backend(model: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(model / "tokenizer.json"))


def template_text(model: Path, row: dict[str, Any]) -> str:
    from transformers import AutoTokenizer

    for message in row["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    return tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)


def weather(number: int) -> dict[str, Any]:
    return json.loads(WEATHER.read_text().splitlines()[number - 1])


def test_the_text_shown_is_the_templates(capsys, model: Path) -> None:
    out = show(capsys, WEATHER, "--model", model)
    assert template_text(model, weather(1)).rstrip("\n") in out
    assert f"{WEATHER}:1" in out.splitlines()[0]
    assert "\x1b[" not in out


def test_rows_are_chosen(capsys, model: Path) -> None:
    out = show(capsys, WEATHER, "--model", model, "--row", 3, "--num-rows", 2)
    headings = re.findall(re.escape(str(WEATHER)) + r":(\d+)", out)
    assert headings == ["3", "4"]
    for number, shown in ((2, False), (3, True), (4, True), (5, False)):
        assert (template_text(model, weather(number)).rstrip("\n") in out) == shown


def test_a_row_that_is_not_there_exits_with_2(capsys, model: Path) -> None:
    assert main(["tokens", str(WEATHER), "--model", str(model), "--row", "7"]) == 2
    assert f"there is no row 7 in {WEATHER}" in capsys.readouterr().err
    assert main(["tokens", str(WEATHER), "--model", str(model), "--row", "3", "--limit", "2"]) == 2


def test_ids_are_those_of_the_text_before_them(capsys, model: Path) -> None:
    out = show(capsys, WEATHER, "--model", model, "--ids")
    ids = [int(word) for group in re.findall(r"⟨([\d ]+)⟩", out) for word in group.split()]
    text = backend(model).decode(ids, skip_special_tokens=False)
    assert text == template_text(model, weather(1)).rstrip("\n")
    assert backend(model).encode(text, add_special_tokens=False).ids == ids


def test_branches_say_where_they_fork_off(capsys, reasoned: Path, forgetful_model: Path) -> None:
    out = show(capsys, reasoned, "--model", forgetful_model, "--ids")
    head = '<|im_start|>user\n1 < 2 & "3"?<|im_end|>\n<|im_start|>assistant\n'
    shared = len(backend(forgetful_model).encode(head, add_special_tokens=False).ids)
    assert f"── branch at token {shared:,} ──" in out
    assert "turns: 2 exact, 0 refused" in out
    assert re.search(r"tokens: \d+ in 2 branches", out)


def test_a_refused_turn_is_shown_with_its_code_and_mend(tmp_path: Path, capsys, model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "a<|im_end|>b"}]
    path.write_text(json.dumps({"messages": messages}))
    out = show(capsys, path, "--model", model)
    assert "turns: 0 exact, 1 refused" in out
    assert "refused, turn 0: turn 0: STOP_INSIDE_TURN: a stop token stands inside the turn" in out
    assert "(mend: the turn's text contains a stop token" in out


def test_control_tokens_in_text_are_told_of(tmp_path: Path, capsys, model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "<|im_start|>?"}, {"role": "assistant", "content": "It starts."}]
    path.write_text(json.dumps({"messages": messages}))
    assert "control tokens in text: '<|im_start|>' in a user message" in show(capsys, path, "--model", model)


def test_a_file_name_in_brackets_is_shown_as_it_is(tmp_path: Path, capsys, model: Path) -> None:
    path = tmp_path / "[bold] [" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(weather(1)))
    assert "[bold] [/rows.jsonl:1" in show(capsys, path, "--model", model)


def test_colour_always_colours_piped_output_whatever_the_surroundings_say(capsys, model: Path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    out = show(capsys, WEATHER, "--model", model, "--color", "always")
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    trained = re.findall(r"\x1b\[1;32m(.*?)\x1b\[0m", out, flags=re.DOTALL)
    assert "Yes. Rain is expected in Bergen tomorrow, with at most 9 °C." in "".join(trained)
    assert "umbrella" not in "".join(trained)
    assert template_text(model, weather(1)).rstrip("\n") in plain


def test_an_unknown_colour_or_objective_exits_with_2(capsys, model: Path) -> None:
    assert main(["tokens", str(WEATHER), "--model", str(model), "--color", "alway"]) == 2
    assert "Did you mean 'always'" in capsys.readouterr().err
    assert main(["tokens", str(WEATHER), "--model", str(model), "--objective", "world_modle"]) == 2
    assert "Did you mean 'world_model'" in capsys.readouterr().err


class _Page(HTMLParser):
    """The groups of the page, in order: (classes, text); and every tag with its attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.groups: list[tuple[set[str], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside: set[str] | None = None
        self._in_pre = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self._in_pre = True
        elif tag == "span" and self._in_pre:
            self._inside = set((dict(attrs)["class"] or "").split())

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._in_pre = False
        elif tag == "span":
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.groups.append((self._inside, data))

    def text(self, *classes: str) -> str:
        """The tokens' text; of groups with these classes only, where some are given."""
        beside = {"ids", "branch"}
        return "".join(text for found, text in self.groups if not found & beside and found >= set(classes))

    def ids(self) -> list[int]:
        return [int(word) for found, text in self.groups if "ids" in found for word in text.strip("⟨⟩").split()]


def page(capsys, path: Path, model: Path, out: Path, *arguments: object) -> _Page:
    assert show(capsys, path, "--model", model, "--html", out, *arguments) == ""
    return _Page(out.read_text(encoding="utf-8"))


def test_the_page_loads_nothing_from_elsewhere(capsys, tmp_path: Path, model: Path) -> None:
    found = page(capsys, WEATHER, model, tmp_path / "page.html")
    for tag, attributes in found.tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "base"}
        assert not {"src", "href", "srcset"} & set(attributes)
    source = (tmp_path / "page.html").read_text()
    assert "@import" not in source
    assert "url(" not in source


def test_the_text_of_the_page_is_that_of_its_tokens(
    capsys, tmp_path: Path, reasoned: Path, model: Path, forgetful_model: Path
) -> None:
    found = page(capsys, WEATHER, model, tmp_path / "a.html")
    assert found.text() == template_text(model, weather(1)).rstrip("\n")
    assert found.text() == backend(model).decode(found.ids(), skip_special_tokens=False)
    found = page(capsys, reasoned, forgetful_model, tmp_path / "b.html")
    assert found.text() == backend(forgetful_model).decode(found.ids(), skip_special_tokens=False)
    assert [text for classes, text in found.groups if "branch" in classes] != []


def test_an_objective_weighs_the_tokens(capsys, tmp_path: Path, model: Path) -> None:
    action, observation = "Yes. Rain is expected", '{"sky": "rain", "high_c": 9'
    trained = {
        objective: page(capsys, WEATHER, model, tmp_path / "page.html", "--objective", objective).text("trained")
        for objective in ("behavioral_cloning", "world_model", "combined")
    }
    assert [(action in text, observation in text) for text in trained.values()] == [
        (True, False),
        (False, True),
        (True, True),
    ]


def test_several_rows_share_a_page(capsys, tmp_path: Path, model: Path) -> None:
    found = page(capsys, WEATHER, model, tmp_path / "page.html", "--num-rows", 6)
    assert sum(tag == "pre" for tag, _ in found.tags) == 6
