"""Where observed messages stand in a prompt, as tokens."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.rendering.chatml import CHATML, decode, observed, small, talk
from tests.rendering.conversation_shapes import PARIS, PARIS_RESULT, ROME, ROME_RESULT, TOOLS, assistant, system, user
from understudy.rendering import ModelTokenizer, Renderer
from understudy.types import Episode, Message, SampledTokens, SpanKind, ToolCall, Trajectory, Turn


def test_observation_spans_hold_the_observed_content_through_the_token_that_ends_it(qwen3: ModelTokenizer) -> None:
    trajectory = talk(
        system("Be brief."), user("Paris and Rome?"), assistant("", PARIS, ROME), PARIS_RESULT, ROME_RESULT,
        assistant("21 and 29."), user("Thanks, \n bye! "), assistant("Bye."), tools=TOOLS,
    )  # fmt: skip
    rendered = Renderer(qwen3, observations=True).render(trajectory)
    assert observed(qwen3, rendered) == [
        (1, "tool", '{"temperature": 21}\n</tool_response>'),  # the brace and the line feed after it are one token
        (1, "tool", '{"temperature": 29}\n</tool_response>'),
        (2, "user", "Thanks, \n bye! <|im_end|>"),
    ]
    assert rendered.num_unlocated_observations == 0
    spans = [span for span, _ in rendered.tree.spans() if span.kind == SpanKind.OBSERVATION]
    assert [(span.turn, span.message) for span in spans] == [(1, 0), (1, 1), (2, 0)]


def test_repeated_contents_are_told_apart() -> None:
    trajectory = talk(user("ok"), assistant("ok"), user("ok"), assistant("ok"), user("ok"), assistant("ok"))
    rendered = Renderer(small(), observations=True).render(trajectory)
    assert observed(small(), rendered) == [(1, "user", "ok<|im_end|>"), (2, "user", "ok<|im_end|>")]
    starts = [span.start for span, _ in rendered.tree.spans() if span.kind == SpanKind.OBSERVATION]
    text = decode(small(), rendered.tree.sequence_ids(rendered.turns[-1].sequence))
    places = [match.end() - len("ok") for match in re.finditer("user\nok", text)]
    assert starts == [len(small().encode(text[:place])) for place in places[1:]]


def test_a_closing_observation_is_located_though_no_turn_follows_it() -> None:
    trajectory = talk(user("1?"), assistant("1"), user("Right, goodbye."))
    rendered = Renderer(small(), observations=True).render(trajectory)
    assert observed(small(), rendered) == [(1, "user", "Right, goodbye.<|im_end|>")]
    without = Renderer(small()).render(trajectory)
    assert "goodbye" not in decode(small(), without.tree.ids)


def test_a_content_that_the_template_changes_is_counted_as_not_located() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content | upper if m.role == 'user' else m.content }}")
    trajectory = talk(user("A"), assistant("B"), user("hello"), assistant("C"))
    rendered = Renderer(small(template), observations=True).render(trajectory)
    assert rendered.num_unlocated_observations == 0
    assert observed(small(), rendered) == [(1, "user", "HELLO<|im_end|>")]
    template = CHATML.replace("{{ m.content }}", "{{ m.content | reverse if m.role == 'user' else m.content }}")
    rendered = Renderer(small(template), observations=True).render(trajectory)
    assert rendered.num_unlocated_observations == 1


def test_an_observation_that_many_prompts_hold_is_counted_once() -> None:
    messages = [message for n in range(5) for message in (user(f"question {n}"), assistant(f"answer {n}"))]
    rendered = Renderer(small(), observations=True).render(talk(*messages))
    assert [turn for turn, _, _ in observed(small(), rendered)] == [1, 2, 3, 4]


def test_a_message_that_an_environment_shows_again_is_another_observation() -> None:
    again = Message("user", "again please")
    messages = [user("begin"), *(message for n in range(3) for message in (assistant(f"answer {n}"), again))]
    rendered = Renderer(small(), observations=True).render(Episode.from_messages(messages).trajectories[0])
    assert [turn for turn, _, _ in observed(small(), rendered)] == [1, 2, 3]


def test_what_a_label_and_the_turn_in_its_place_observed_is_one_observation() -> None:
    begin, seen = (Message("user", "begin"),), "what is seen"
    turns = (
        Turn(None, begin, Message("assistant", "left")),
        Turn(0, (Message("user", seen),), Message("assistant", "wrong"), weight=0.0),
        Turn(0, (Message("user", seen),), Message("assistant", "right"), annotations={"label_of": 1}),
        Turn(1, (Message("user", "the end"),)),
    )
    rendered = Renderer(small(), observations=True).render(Trajectory(turns))
    assert [turn for turn, _, _ in observed(small(), rendered)] == [1, 3]


def test_recorded_ids_of_a_conversation_that_cannot_be_rendered_are_trained_all_the_same() -> None:
    call = Message("assistant", tool_calls=(ToolCall("look", "{not JSON"),))
    turns = (
        Turn(None, (Message("user", "begin"),), call, sampled=SampledTokens((5, 6), (7,))),
        Turn(0, (Message("tool", "seen"),), Message("assistant", "end"), sampled=SampledTokens((5, 6, 7, 8), (9,))),
    )
    rendered = Renderer(small(), observations=True).render(Trajectory(turns))
    assert [turn.how for turn in rendered.turns] == ["recorded", "recorded"]
    assert rendered.num_unlocated_observations == 1


def test_an_observation_that_no_recorded_prompt_shows_is_counted_once() -> None:
    seen = [Turn(k - 1 if k else None, (Message("user", f"{k}?"),), Message("assistant", "!")) for k in range(4)]
    ids = SampledTokens((5, 6), (7,))  # the ids of another template
    rendered = Renderer(small(), observations=True).render(Trajectory(tuple(replace(t, sampled=ids) for t in seen)))
    assert rendered.num_unlocated_observations == 3
