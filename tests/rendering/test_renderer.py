"""What a renderer does with whole trajectories: refusals, weights, forks, recorded ids, templates."""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rendering.chatml import CHATML, decode, observed, sequences, small, talk
from tests.rendering.conversation_shapes import PARIS, PARIS_RESULT, TOOLS, assistant, system, user
from tests.rendering.small_tokenizers import byte_level
from understudy.errors import RenderError
from understudy.rendering import ModelTokenizer, RefusalCode, Renderer, ServerProfile
from understudy.types import (
    Episode,
    ImagePart,
    Message,
    SampledTokens,
    Span,
    SpanKind,
    Tool,
    Trajectory,
    Turn,
)

# What happens to refused turns.

STOPPED = (user("1?"), assistant("a<|im_end|>b"), user("2?"), assistant("2"))


def test_fail_names_the_turn_the_code_and_the_mend() -> None:
    with pytest.raises(RenderError, match=r"turn 0: STOP_INSIDE_TURN: .* at 'a<\|im_end\|>b.*\(mend: .*clean it\)"):
        Renderer(small()).render(talk(*STOPPED))


def test_skip_leaves_the_turn_out_and_later_turns_still_see_it() -> None:
    rendered = Renderer(small(), on_refusal="skip").render(talk(*STOPPED))
    assert [refusal.turn for refusal in rendered.refusals] == [0]
    assert [turn.turn for turn in rendered.turns] == [1]
    assert "assistant\na<|im_end|>b<|im_end|>" in sequences(small(), rendered)[0][0]


def test_context_inserts_the_prompt_of_a_refused_turn_with_its_observations() -> None:
    trajectory = talk(user("1?"), assistant("1"), user("2?"), assistant("a<|im_end|>b"))
    rendered = Renderer(small(), on_refusal="context", observations=True).render(trajectory)
    assert [refusal.code for refusal in rendered.refusals] == [RefusalCode.STOP_INSIDE_TURN]
    assert observed(small(), rendered) == [(1, "user", "2?<|im_end|>")]
    assert not np.isin(rendered.tree.kinds()[1][rendered.tree.action_weights() > 0], [1]).any()
    assert decode(small(), rendered.tree.ids).count("a<|im_end|>b") == 0


def test_an_unknown_policy_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(RenderError, match="Did you mean 'skip'"):
        Renderer(small(), on_refusal="skipp")  # type: ignore[arg-type]


# Weights, forks and roots.


def test_each_turn_has_its_own_weight_and_weight_zero_is_context_only() -> None:
    messages = [user("1?"), assistant("one"), user("2?"), assistant("two"), user("3?"), assistant("six")]
    episode = Episode.from_messages(messages, weights=[1, 0, 1, 0.5, 1, 2])
    rendered = Renderer(small()).render(episode.trajectories[0])
    weights = rendered.tree.action_weights()
    assert [turn.turn for turn in rendered.turns] == [1, 2]
    for weight, text in ((0.5, "two<|im_end|>"), (2.0, "six<|im_end|>")):
        assert decode(small(), rendered.tree.ids[weights == weight]) == text
    assert "one" in decode(small(), rendered.tree.ids[weights == 0])


def test_forks_share_their_prefix_and_roots_stand_apart() -> None:
    ask = (Message("user", "1?"),)
    turns = (
        Turn(None, ask, Message("assistant", "one")),
        Turn(0, (Message("user", "left"),), Message("assistant", "l")),
        Turn(0, (Message("user", "right"),), Message("assistant", "r")),
        Turn(None, (Message("system", "Fresh."),), Message("assistant", "new")),
    )
    rendered = Renderer(small()).render(Trajectory(turns))
    texts = [prompt + target for prompt, target in sequences(small(), rendered)]
    assert all(text.startswith(texts[0]) for text in texts[1:3])
    assert texts[3] == "<|im_start|>system\nFresh.<|im_end|>\n<|im_start|>assistant\nnew<|im_end|>"
    tree = rendered.tree
    assert len(tree.leaves()) == 3
    calls = [tree.sequence_ids(k).tolist() for k in range(4)]
    assert tree.num_tokens == len({tuple(ids[: n + 1]) for ids in calls for n in range(len(ids))})


def test_siblings_that_begin_alike_add_their_weights_on_what_they_share() -> None:
    ask = (Message("user", "?"),)
    turns = (Turn(None, ask, Message("assistant", "yes")), Turn(None, ask, Message("assistant", "yet"), weight=2.0))
    tree = Renderer(small()).render(Trajectory(turns)).tree
    weights = tree.action_weights()
    assert decode(small(), tree.ids[weights == 3]) == "ye"
    assert decode(small(), tree.ids[weights == 1]) == "s<|im_end|>"
    assert decode(small(), tree.ids[weights == 2]) == "t<|im_end|>"


def test_tools_of_a_root_reach_all_turns_below_it(qwen3: ModelTokenizer) -> None:
    trajectory = talk(user("Paris?"), assistant("", PARIS), PARIS_RESULT, assistant("21."), tools=TOOLS)
    for prompt, _ in sequences(qwen3, Renderer(qwen3).render(trajectory)):
        assert json.dumps(TOOLS[0]) in prompt


# Recorded ids.


def recorded(prompt: list[int], output: list[int]) -> Trajectory:
    return Trajectory(
        (
            Turn(
                None,
                (Message("user", "1?"),),
                Message("assistant", "1"),
                sampled=SampledTokens(tuple(prompt), tuple(output)),
            ),
        )
    )


PROMPT, REPLY = "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n", "1<|im_end|>"


def test_recorded_ids_are_trained_as_they_are() -> None:
    rendered = Renderer(small()).render(recorded([5, 6, 7], [8, 9]))
    assert rendered.tree.ids.tolist() == [5, 6, 7, 8, 9]
    assert rendered.tree.action_weights().tolist() == [0, 0, 0, 1, 1]
    assert [(turn.how, turn.target) for turn in rendered.turns] == [("recorded", None)]
    assert rendered.audits == ()


def test_an_audit_says_whether_recorded_ids_equal_the_rendering() -> None:
    tokenizer = small()
    prompt, reply = tokenizer.encode(PROMPT), tokenizer.encode(REPLY)
    renderer = Renderer(tokenizer, audit=True)
    (equal,) = renderer.render(recorded(prompt, reply)).audits
    assert (equal.equal, equal.first_difference, equal.refusal) == (True, None, None)
    (differs,) = renderer.render(recorded(prompt, [*reply[:1], 3, *reply[1:]])).audits
    assert (differs.equal, differs.first_difference) == (False, len(prompt) + 1)
    (cut,) = renderer.render(recorded(prompt, reply[:1])).audits
    assert (cut.equal, cut.first_difference) == (False, len(prompt) + 1)


def test_an_audit_of_a_turn_that_cannot_be_rendered_says_why_and_the_ids_are_trained_all_the_same() -> None:
    turn = Turn(None, (Message("user", "1?"),), Message("assistant", "a<|im_end|>b"), sampled=SampledTokens((5,), (6,)))
    rendered = Renderer(small(), audit=True).render(Trajectory((turn,)))
    (audit,) = rendered.audits
    assert (audit.equal, audit.refusal and audit.refusal.code) == (False, RefusalCode.STOP_INSIDE_TURN)
    assert rendered.tree.ids.tolist() == [5, 6]
    assert rendered.refusals == ()


def test_real_ids_that_encode_differently_are_trained_as_the_engine_saw_them(
    qwen3: ModelTokenizer, test_data: Path
) -> None:
    """The engine's ids and those of the same text encoded again differ by a few merges."""
    fixture = json.loads((test_data / "corpus/token_fixtures/nemo_rl_retokenisation_drift.json").read_text())
    seen, again = fixture["seen_token_ids"], fixture["output_prompt_token_ids"]
    again = again[: len(qwen3.encode(decode(qwen3, seen)))]
    assert decode(qwen3, again) == decode(qwen3, seen)
    assert seen != qwen3.encode(decode(qwen3, seen))
    starts = [n for n, token in enumerate(seen) if token == qwen3.backend.token_to_id("<|im_start|>")]
    start = starts[-1] + 3
    turn = Turn(
        None,
        (Message("user", "1?"),),
        Message("assistant", "1"),
        sampled=SampledTokens(tuple(seen[:start]), tuple(seen[start:])),
    )
    rendered = Renderer(qwen3, audit=True).render(Trajectory((turn,)))
    assert rendered.tree.ids.tolist() == seen
    assert np.flatnonzero(rendered.tree.action_weights()).tolist() == list(range(start, len(seen)))
    assert not rendered.audits[0].equal


# Templates.


def test_a_model_with_a_template_for_tools_uses_it_where_there_are_tools() -> None:
    tokenizer = small({"default": CHATML, "tool_use": "TOOLS" + CHATML})
    plain, tooled = talk(user("1?"), assistant("1")), talk(user("1?"), assistant("1"), tools=TOOLS)
    renderer = Renderer(tokenizer)
    assert sequences(tokenizer, renderer.render(plain))[0][0].startswith("<|im_start|>")
    assert sequences(tokenizer, renderer.render(tooled))[0][0].startswith("TOOLS<|im_start|>")


def test_a_model_without_a_usable_template_is_an_error() -> None:
    with pytest.raises(RenderError, match="'small' has no chat template"):
        Renderer(byte_level("<s>"))
    with pytest.raises(RenderError, match=r"has templates \['rag'\], but none called default"):
        Renderer(small({"rag": CHATML}))
    with pytest.raises(RenderError, match="cannot be compiled"):
        Renderer(small("{% for m in messages %}"))


def test_the_fingerprint_changes_with_each_ingredient_and_with_nothing_else() -> None:
    base = small()
    renderers = {
        "base": Renderer(base),
        "vocabulary": Renderer(byte_level("<|im_start|>", "<|im_end|>", "</s>", "<more>", template=CHATML)),
        "template": Renderer(small(CHATML + " ")),
        "tool template": Renderer(small({"default": CHATML, "tool_use": CHATML})),
        "variables": Renderer(small(bos_token="</s>")),
        "template arguments": Renderer(base, ServerProfile(template_arguments={"enable_thinking": False})),
        "clock": Renderer(base, ServerProfile(clock="2031-02-03T04:05:06")),
        "null content": Renderer(base, ServerProfile(null_content="null")),
        "stop tokens": Renderer(dataclasses.replace(base, stop_tokens=("</s>",))),
    }
    fingerprints = {name: renderer.fingerprint() for name, renderer in renderers.items()}
    assert len(set(fingerprints.values())) == len(renderers)
    same = Renderer(dataclasses.replace(base, name="elsewhere"), on_refusal="skip", observations=True, audit=True)
    assert same.fingerprint() == fingerprints["base"]


# What is refused and what is reported.

HALF = (Tool.from_openai({"name": "look", "description": "half \udc00"}),)


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (Turn(None, (Message("user", (ImagePart("x.png"),)),), Message("assistant", "1")), RefusalCode.HAS_IMAGES),
        (Turn(None, (Message("user", "half \udc00"),), Message("assistant", "1")), RefusalCode.LONE_SURROGATE),
        (Turn(None, (Message("user", "1?"),), Message("assistant", "1"), HALF), RefusalCode.LONE_SURROGATE),
        (Turn(None, (), Message("assistant", "1")), RefusalCode.EMPTY_CONTEXT),
    ],
)
def test_what_no_server_would_take_is_refused_in_the_context_too(turn: Turn, code: RefusalCode) -> None:
    rendered = Renderer(small(), on_refusal="context", observations=True).render(Trajectory((turn,)))
    assert [refusal.code for refusal in rendered.refusals] == [code]
    assert rendered.tree.num_tokens == 0


def test_control_tokens_written_in_ordinary_text_are_reported_once() -> None:
    trajectory = talk(user("What is </s>?"), assistant("An end."), user("And <|im_start|>?"), assistant("A start."))
    rendered = Renderer(small()).render(trajectory)
    assert [(found.turn, found.role, found.text) for found in rendered.control_strings] == [
        (0, "user", "</s>"),
        (1, "user", "<|im_start|>"),
    ]


def test_a_message_that_the_template_leaves_out_is_reported() -> None:
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    rendered = Renderer(small(template)).render(talk(system("Be brief."), user("1?"), assistant("1")))
    assert [(found.turn, found.role, found.excerpt) for found in rendered.dropped_context] == [
        (0, "system", "Be brief.")
    ]


@pytest.mark.parametrize(
    ("template", "tools", "drops"),
    [
        (CHATML, TOOLS, True),
        (CHATML, (), False),
        ("{{ tools | tojson }}" + CHATML, TOOLS, False),
        ({"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML}, TOOLS, False),
        ("{% set tools = [] %}{{ tools | tojson }}" + CHATML, TOOLS, True),
    ],
)
def test_tools_that_the_template_leaves_out_are_reported(
    template: str | dict[str, str], tools: Any, drops: bool
) -> None:
    assert Renderer(small(template)).render(talk(user("1?"), assistant("1"), tools=tools)).drops_tools is drops


def test_checksums_are_those_of_the_inserted_calls() -> None:
    rendered = Renderer(small()).render(talk(user("1?"), assistant("1"), user("2?"), assistant("2")))
    for turn in rendered.turns:
        expected = np.array(small().encode("".join(sequences(small(), rendered)[turn.turn])), np.int32)
        assert turn.checksum == zlib.crc32(expected.tobytes())


def test_flat_length_counts_each_conversation_once() -> None:
    trajectory = talk(user("1?"), assistant("1"), user("2?"), assistant("2"))
    text = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in trajectory.messages())
    assert Renderer(small()).flat_length(trajectory) == len(small().encode(text))


def test_an_empty_trajectory_gives_an_empty_tree() -> None:
    rendered = Renderer(small()).render(Trajectory(()))
    assert (rendered.tree.num_tokens, rendered.turns, rendered.refusals) == (0, (), ())


def test_the_action_span_of_a_turn_is_its_target_and_nothing_more() -> None:
    rendered = Renderer(small()).render(talk(user("1?"), assistant("1"), user("2?"), assistant("2")))
    for turn in rendered.turns:
        stop = turn.num_prompt_tokens + turn.num_target_tokens
        expected = Span(SpanKind.ACTION, turn.turn, turn.num_prompt_tokens, stop, 1.0)
        assert rendered.tree.sequences[turn.sequence][1] == (expected,)
