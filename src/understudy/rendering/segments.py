"""Tokenising by segments: the same ids as encoding the whole text, at the cost of what is new.

Fast tokenizers cut a text at added tokens (``<|im_start|>`` and the like) before they normalise and pre-tokenise, so
the ids of a text are the ids of its segments joined. That lets ids be remembered by segment, and the ids of a text that
begins like the last one be reused up to the last common added token. It holds only for some tokenizers; which, is read
off the tokenizer's own rules, and every `VERIFY_EVERY`-th text is compared with a plain encode all the same.
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from understudy.errors import RenderError
from understudy.types.tokens import Ints

from .huggingface import ModelTokenizer

VERIFY_FIRST = 2
VERIFY_EVERY = 1024
MAX_REMEMBERED_CHARS = 16_000_000


def common_prefix_length(a: str, b: str) -> int:
    """Return the length of the longest common prefix of two texts, comparing slices rather than characters."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, step = 0, 4096
    while a[low : low + step] == b[low : low + step]:
        low += step
        step *= 2
    high = min(n, low + step)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(slots=True)
class _Last:
    """The last text that was encoded whole: its ids, and where its added tokens end in characters and in ids."""

    text: str = ""
    ids: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    char_ends: list[int] = field(default_factory=list)
    id_ends: list[int] = field(default_factory=list)


class SegmentTokenizer:
    """Encode rendered chats.

    Args:
        tokenizer: the model's tokenizer.
        verify_every: compare one text in so many with a plain encode; 1 compares all of them.
    """

    def __init__(self, tokenizer: ModelTokenizer, *, verify_every: int = VERIFY_EVERY) -> None:
        self._backend = tokenizer.backend
        self._verify_every = verify_every
        self.added: dict[str, int] = {
            token.content: index for index, token in self._backend.get_added_tokens_decoder().items()
        }
        # The tokenizer takes the leftmost and then the longest added token; so does an alternation sorted by length.
        longest_first = sorted(self.added, key=len, reverse=True)
        self.added_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if self.added else None
        self._longest_added = max(map(len, self.added), default=0)
        self.cuts_at_added_tokens = bool(self.added) and _segments_are_independent(self._backend)
        self._anchor = next(iter(self.added), "") if _first_segment_differs(self._backend) else ""
        self._remembered: dict[str, Ints] = {}
        self._remembered_chars = 0
        self._last = _Last()
        self._num_texts = 0

    def plain(self, text: str) -> Ints:
        """Return the ids of a text by one plain encode, the reference for all else."""
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.int32)

    def encode(self, text: str) -> Ints:
        """Return the ids of a whole text.

        Raises:
            RenderError: a comparison with the plain encode failed.
        """
        if not self.cuts_at_added_tokens:
            return self.plain(text)
        ids = self._encode_from_last(text)
        self._num_texts += 1
        if self._num_texts <= VERIFY_FIRST or self._num_texts % self._verify_every == 0:
            self.verify_last()
        return ids

    def verify_last(self) -> None:
        """Compare the ids of the text that was encoded last with a plain encode of it.

        Raises:
            RenderError: they differ.
        """
        if not np.array_equal(self._last.ids, self.plain(self._last.text)):
            raise RenderError(
                "this tokenizer's ids of a text differ from the ids of its segments, which its rules do not show; "
                "please report the model's name"
            )

    def encode_continuation(self, prompt: str, target: str) -> tuple[Ints, Ints]:
        """Return (ids of the prompt, ids of the target after it).

        The target's ids are the rest of the ids of both together where these begin with the prompt's. Where a token
        would span the seam, the target is encoded alone, since a server has the prompt's ids before the first token.
        """
        prompt_ids = self.encode(prompt)
        joint = self.encode(prompt + target)
        if len(joint) >= len(prompt_ids) and np.array_equal(joint[: len(prompt_ids)], prompt_ids):
            return prompt_ids, joint[len(prompt_ids) :]
        return prompt_ids, self.plain(self._anchor + target)[1 if self._anchor else 0 :]

    def token_range(self, text: str, start: int, stop: int) -> tuple[int, int] | None:
        """Return the index range of the tokens of `text` that hold any of the characters start to stop."""
        first = last = None
        char = index = 0
        pieces = self._pieces(text)
        ids = self._encode_pieces(pieces, at_start=True) if self.cuts_at_added_tokens else [self.plain(text)]
        for piece, piece_ids in zip(pieces, ids, strict=True):
            if char >= stop:
                break
            if char + len(piece) > start:
                for j, (a, b) in enumerate(self._offsets(piece, at_start=char == 0)):
                    if max(char + a, start) < min(char + b, stop):
                        first = index + j if first is None else first
                        last = index + j + 1
            index += len(piece_ids)
            char += len(piece)
        return None if first is None or last is None else (first, last)

    def added_token_after(self, text: str, start: int) -> tuple[int, int] | None:
        """Return the characters of the first added token that begins at or after `start`."""
        found = self.added_pattern.search(text, start) if self.added_pattern else None
        return found.span() if found else None

    def _offsets(self, piece: str, *, at_start: bool) -> list[tuple[int, int]]:
        if piece in self.added and self.cuts_at_added_tokens:
            return [(0, len(piece))]
        anchor = "" if at_start else self._anchor
        encoding: Any = self._backend.encode(anchor + piece, add_special_tokens=False)
        offsets = [(a - len(anchor), b - len(anchor)) for a, b in encoding.offsets]
        return offsets[1:] if anchor else offsets

    def _pieces(self, text: str) -> list[str]:
        if self.added_pattern is None or not self.cuts_at_added_tokens:
            return [text]
        return [piece for piece in self.added_pattern.split(text) if piece]

    def _encode_from_last(self, text: str) -> Ints:
        """Encode, reusing the last text's ids up to its last added token that both texts share."""
        last = self._last
        # An added token that begins before the difference might be another, longer one in the new text.
        shared = common_prefix_length(last.text, text) - self._longest_added
        at = bisect.bisect_right(last.char_ends, shared)
        char, index = (last.char_ends[at - 1], last.id_ends[at - 1]) if at else (0, 0)
        pieces = self._pieces(text[char:])
        arrays = self._encode_pieces(pieces, at_start=char == 0)
        ids = np.concatenate([last.ids[:index], *arrays]) if arrays else last.ids[:index]
        del last.char_ends[at:], last.id_ends[at:]
        for piece, array in zip(pieces, arrays, strict=True):
            char += len(piece)
            index += len(array)
            if piece in self.added:
                last.char_ends.append(char)
                last.id_ends.append(index)
        last.text, last.ids = text, ids
        return ids

    def _encode_pieces(self, pieces: list[str], *, at_start: bool) -> list[Ints]:
        """Return the ids of each piece, encoding together those that are new."""
        if self._remembered_chars > MAX_REMEMBERED_CHARS:
            self._remembered.clear()
            self._remembered_chars = 0
        remembered, first = self._remembered, []
        if self._anchor and at_start and pieces and pieces[0] not in self.added:
            first, pieces = [self.plain(pieces[0])], pieces[1:]
        new = list(dict.fromkeys(p for p in pieces if p not in remembered and p not in self.added))
        if new:
            skip = 1 if self._anchor else 0
            encodings = self._backend.encode_batch_fast([self._anchor + p for p in new], add_special_tokens=False)
            for piece, encoding in zip(new, encodings, strict=True):
                remembered[piece] = np.asarray(encoding.ids[skip:], np.int32)
                self._remembered_chars += len(piece)
        added = self.added
        return first + [np.asarray([added[p]], np.int32) if p in added else remembered[p] for p in pieces]


def _segments_are_independent(backend: Any) -> bool:
    """True when the tokenizer's rules let a text be cut at its added tokens.

    Not so when an added token takes white space around it with it, must stand alone as a word, or is looked for only
    after normalisation while there is a normaliser.
    """
    tokens = backend.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip or token.single_word for token in tokens):
        return False
    return backend.normalizer is None or not any(token.normalized for token in tokens)


def _first_segment_differs(backend: Any) -> bool:
    """True when only the first segment of a text gets a leading space (SentencePiece's ``prepend_scheme: first``)."""
    if backend.pre_tokenizer is None:
        return False
    rules = json.loads(backend.pre_tokenizer.__getstate__())
    parts = [rules, *rules.get("pretokenizers", ())]
    return any(part.get("prepend_scheme") == "first" for part in parts)
