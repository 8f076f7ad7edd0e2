"""A search index over a few hundred short documents, ranked by BM25.

The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
``k1`` 1.2, ``b`` 0.75 and the idf that stays positive, ``log(1 + (N - n + 0.5) / (n + 0.5))``, as in Lucene.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

K1 = 1.2
B = 0.75

_WORD = re.compile(r"\w+")


class Index:
    """Texts that can be searched.

    Args:
        texts: in an order that breaks ties: earlier ones first.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(words(text)) for text in texts]
        lengths = [counts.total() for counts in self._counts]
        mean_length = sum(lengths) / max(1, len(lengths))
        self._norms = [K1 * (1 - B + B * length / max(1.0, mean_length)) for length in lengths]
        self._num_with = Counter(word for counts in self._counts for word in counts)

    def search(self, query: str, limit: int) -> list[int]:
        """Return the positions of the best texts, best first; texts that share no word with the query are left out."""
        idf = {word: self._idf(word) for word in words(query)}
        scores = [
            sum(idf[word] * counts[word] * (K1 + 1) / (counts[word] + norm) for word in idf)
            for counts, norm in zip(self._counts, self._norms, strict=True)
        ]
        found = [position for position, score in enumerate(scores) if score > 0]
        return sorted(found, key=lambda position: (-scores[position], position))[:limit]

    def _idf(self, word: str) -> float:
        num_with = self._num_with[word]
        return math.log(1 + (len(self._counts) - num_with + 0.5) / (num_with + 0.5))


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return _WORD.findall(text.lower())
