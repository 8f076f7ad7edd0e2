"""The views of a token tree show every token once, as what it is."""

from __future__ import annotations

import html
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.rendering.small_tokenizers import byte_level
from understudy.types import Span, SpanKind, TokenTreeBuilder
from understudy.viewer import TokenGroup, token_groups, token_page, token_text

BACKEND = byte_level("<a>", "<b>").backend
WORDS = st.lists(st.sampled_from(["<a>", "<b>", "x", "yz", "\n", " ", "&lt;", "[red]"]), min_size=1, max_size=6)


@st.composite
def trees(draw: st.DrawFn):
    """A tree of some texts with one span each, and a weight for each of its tokens."""
    builder = TokenTreeBuilder()
    for turn in range(draw(st.integers(1, 5))):
        ids = BACKEND.encode("".join(draw(WORDS)), add_special_tokens=False).ids
        start = draw(st.integers(0, len(ids) - 1))
        kind = draw(st.sampled_from([SpanKind.ACTION, SpanKind.OBSERVATION]))
        builder.insert(ids, [Span(kind, turn, start, draw(st.integers(start + 1, len(ids))))])
    tree = builder.build()
    weights = draw(st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=tree.num_tokens, max_size=tree.num_tokens))
    return tree, np.array(weights)


@given(drawn=trees())
def test_every_token_is_in_one_group_in_order_with_what_it_is(drawn) -> None:
    tree, weights = drawn
    kind, owner = tree.kinds()
    groups = list(token_groups(tree, weights, BACKEND))
    assert [token for group in groups for token in group.ids] == tree.ids.tolist()
    token = 0
    for n, group in enumerate(groups):
        inside = range(token, token + len(group.ids))
        assert {(kind[t], owner[t], weights[t]) for t in inside} == {(group.kind, group.turn, group.weight)}
        assert group.text == BACKEND.decode(list(group.ids), skip_special_tokens=False)
        assert group.depth == tree.depth[token]
        assert group.is_branch == (n > 0 and tree.parent[token] != token - 1)
        assert all(tree.parent[t] == t - 1 for t in inside[1:])
        assert group.is_control == (group.text in {"<a>", "<b>"})
        token += len(group.ids)


@given(drawn=trees())
def test_both_views_show_the_same_text(drawn) -> None:
    groups = list(token_groups(*drawn, BACKEND))
    text = "".join(group.text for group in groups)
    terminal = re.sub(r"\n── branch at token [\d,]+ ──\n", "", token_text(groups).plain)
    page = re.findall(
        r'<span class="(?:context|action|observation)[^>]*>(.*?)</span>',
        token_page("t", [("h", {}, groups)]).split("<pre>")[1],
        re.DOTALL,
    )
    assert terminal == html.unescape("".join(page)) == text


def test_an_empty_tree_has_no_groups() -> None:
    assert list(token_groups(TokenTreeBuilder().build(), np.zeros(0), BACKEND)) == []


def group(text: str, kind: SpanKind, weight: float) -> TokenGroup:
    return TokenGroup((1,), text, kind, turn=0, weight=weight, depth=0, is_branch=False, is_control=False)


def test_the_styles_tell_what_is_trained() -> None:
    groups = [
        group("a", SpanKind.ACTION, 1.0),
        group("b", SpanKind.ACTION, 0.0),
        group("c", SpanKind.OBSERVATION, 0.5),
        group("d", SpanKind.OBSERVATION, 0.0),
        group("e", SpanKind.CONTEXT, 0.0),
    ]
    text = token_text(groups)
    assert [str(span.style) for span in text.spans] == ["bold green", "yellow", "bold blue", "dim", "dim"]
    page = token_page("t", [("h", {}, groups)])
    classes = re.findall(r'<span class="([^"]+)" title', page)
    assert classes == ["action trained", "action", "observation trained", "observation", "context"]


def test_the_page_escapes_what_it_is_given() -> None:
    page = token_page("<t>", [("<h>", {"<k>": "<v>"}, [group("<script>\r", SpanKind.CONTEXT, 0.0)])])
    assert "<script>" not in page
    assert "&lt;script&gt;&#13;" in page
    for name in "thkv":
        assert f"&lt;{name}&gt;" in page
        assert f"<{name}>" not in page


def test_foreign_control_characters_do_not_reach_the_terminal() -> None:
    text = "a\x1b[31mb\x07\x9b\rc\td\n\x7f"
    group = TokenGroup((1,), text, SpanKind.CONTEXT, -1, 0.0, 0, is_branch=False, is_control=False)
    assert token_text([group]).plain == "a␛[31mb␇\ufffd␍c\td\n␡"
