"""English text that every Python brings: its language reference, as `help("topics")` shows it.

It is in the standard library (pydoc_data/topics.py) and under Python's own licence, the PSF License Agreement:
https://docs.python.org/3/license.html. Python 3.11 has 92,000 words and signs of it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.int32]]
RARE = "<rare>"


@dataclass(frozen=True)
class Corpus:
    """A text as numbers of words.

    Args:
        vocabulary: by number; the first one stands for all words that occur once in the training text.
        training: nine tenths of the paragraphs.
        validation: every tenth paragraph.
    """

    vocabulary: tuple[str, ...]
    training: Words
    validation: Words


def load() -> Corpus:
    """Return the text in lower case, paragraphs that stand there more than once only once."""
    paragraphs = dict.fromkeys(p.strip() for topic in topics.values() for p in re.split(r"\n\s*\n", topic))
    words = [re.findall(r"\w+|[^\w\s]", paragraph.lower()) for paragraph in paragraphs]
    training = [word for i, paragraph in enumerate(words) if i % 10 for word in paragraph]
    validation = [word for paragraph in words[::10] for word in paragraph]
    vocabulary = (RARE, *sorted(word for word, count in Counter(training).items() if count > 1))
    numbers = {word: i for i, word in enumerate(vocabulary)}
    return Corpus(vocabulary, _numbered(training, numbers), _numbered(validation, numbers))


def _numbered(words: list[str], numbers: dict[str, int]) -> Words:
    return np.array([numbers.get(word, 0) for word in words], np.int32)
