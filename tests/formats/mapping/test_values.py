"""Where a value comes from, and what it must be."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.errors import FormatError

from .reading import ONE, Read


class TestValues:
    def test_the_first_alternative_that_holds_something_is_taken(self, read: Read) -> None:
        yaml = "messages: m\nenvironment: [a, b.c, d]"
        assert read(yaml, {"m": ONE, "a": None, "b": {"c": ""}, "d": "gym"}).environment == "gym"
        assert read(yaml, {"m": ONE, "b": {"c": ""}}).environment == ""
        assert read(yaml, {"m": ONE}).environment is None

    def test_text_constants_defaults_and_patterns(self, read: Read) -> None:
        episode = read(
            """
            messages: m
            id: {text: "{task.id}-{trial}"}
            environment: {value: tau}
            split: {path: nowhere, default: train}
            agent: {path: src, match: "^([^/]+)/"}
            """,
            {"m": ONE, "task": {"id": "t"}, "trial": 3, "src": "gpt-4/run"},
        )
        assert (episode.id, episode.environment, episode.split) == ("t-3", "tau", "train")
        assert episode.trajectories[0].agent == "gpt-4"

    def test_what_is_only_looked_at_stays_in_the_metadata(self, read: Read) -> None:
        row = {"m": ONE, "src": "gpt-4/run", "n": 3, "verdict": "yes", "reward": 2}
        yaml = """
            messages: m
            id: {text: "{n}"}
            policy: {path: src, match: "^([^/]+)/"}
            success: {path: verdict, values: {"yes": true}}
            reward: reward
            """
        assert read(yaml, row).metadata == {"src": "gpt-4/run", "n": 3, "verdict": "yes"}

    @pytest.mark.parametrize(("found", "success"), [(1, True), (1.0, True), (0, False), (True, None), (None, None)])
    def test_values_tell_numbers_from_booleans_and_null(self, read: Read, found: Any, success: bool | None) -> None:
        yaml = "messages: m\nsuccess: {path: r, values: {1: true, 0: false, true: null, null: null}}"
        assert read(yaml, {"m": ONE, "r": found}).success is success

    def test_null_is_nothing_unless_values_name_it(self, read: Read) -> None:
        yaml = "messages: m\nstop_reason: {path: r, values: {a: done}, default: unknown}"
        assert [read(yaml, {"m": ONE, "r": r}).stop_reason for r in ("a", None)] == ["done", "unknown"]

    def test_json_text_is_parsed_and_lists_of_texts_are_joined(self, read: Read) -> None:
        yaml = "messages: m\ntask: {path: t, parse: json}\nerror: {path: 'e[*].text', join: ' / '}"
        episode = read(yaml, {"m": ONE, "t": '{"goal": 1}', "e": [{"text": "a"}, {"text": "b"}]})
        assert (episode.task, episode.error, episode.metadata) == ({"goal": 1}, "a / b", {})

    @pytest.mark.parametrize(
        ("yaml", "row", "message"),
        [
            (
                "id: {text: '{a}-{b}'}",
                {"a": 1},
                "b: the text '{a}-{b}' needs a text or a number here, but it is not there",
            ),
            ("id: {text: '{a}'}", {"a": []}, "a: the text '{a}' needs a text or a number here, but it is a list"),
            ("id: a", {"a": 1.5}, "id: an id is text or a number, not a number"),
            ("policy: {path: a, match: '^(x)'}", {"a": "y"}, "a: 'y' does not match '^(x)'"),
            ("task: {path: a, parse: json}", {"a": "{"}, "a: a value as text that is not JSON"),
            ("error: {path: a, join: ','}", {"a": [1]}, "a: join needs a list of texts"),
            ("reward: a", {"a": "high"}, "reward: expected a number, not text ('high')"),
            ("reward: a", {"a": float("nan")}, "reward: expected a number, not a number (nan)"),
            (
                "success: a",
                {"a": 1},
                "success: expected true or false, not a number (1) (mend: turn the source's words",
            ),
            ("seed: a", {"a": True}, "seed: expected an integer, not true or false"),
            ("environment: a", {"a": {}}, "environment: expected text, not an object"),
            (
                "success: {path: a, values: {resolved: true}}",
                {"a": "resolve"},
                "a: 'resolve' is not among the mapping's values. Did you mean 'resolved'? (mend: add it under values)",
            ),
        ],
    )
    def test_a_value_that_does_not_fit_names_its_field(
        self, read: Read, yaml: str, row: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(FormatError) as caught:
            read(f"messages: m\n{yaml}", {"m": ONE, **row})
        assert str(caught.value).startswith(message)

    def test_rewards_may_be_boolean_negative_or_missing(self, read: Read) -> None:
        rewards = [read("messages: m\nreward: r", {"m": ONE, **row}).reward for row in ({"r": True}, {"r": -0.5}, {})]
        assert rewards == [1.0, -0.5, None]
