"""Names of variables that ranks, or a checkpoint and a model, have in common: Keras numbers what a process makes.

A layer without a name of its own is `dense_3` where three were made before it. The same model has other names on a
rank that has made another one first, and a second time in one process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

# The number at the end of a part of a path.
_NUMBER = re.compile(r"_(\d+)(?=[/#]|$)")


def variable_names(variables: Sequence[Any]) -> list[str]:
    """Return a name for every variable: its path in the model; numbered where several have the same."""
    found: list[str] = []
    for variable in variables:
        name = str(getattr(variable, "path", None) or variable.name).removesuffix(":0")
        number = sum(other == name or other.startswith(f"{name}#") for other in found)
        found.append(f"{name}#{number}" if number else name)
    return found


def differ_in_numbers_only(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether two lists name the same variables in the same order, but for the numbers that Keras gave.

    Numbers must be in the same order in both lists: swapped layers are not taken for one another.
    """
    if len(names) != len(others):
        return False
    return [_NUMBER.sub("", n) for n in names] == [_NUMBER.sub("", n) for n in others] and _order(names) == _order(
        others
    )


def _order(names: Sequence[str]) -> list[int]:
    """Return the variables in the order of their numbers, those that are equal without numbers together."""
    keys = [(_NUMBER.sub("", name), _numbers(name)) for name in names]
    return sorted(range(len(keys)), key=lambda i: keys[i])


def _numbers(name: str) -> tuple[int, ...]:
    """Return the number of every part of a path; the first of its kind has none, which is 0."""
    found = (_NUMBER.search(part) for part in re.split("[/#]", name))
    return tuple(0 if number is None else int(number[1]) for number in found)


@final
class SavedNames(tf.train.experimental.PythonState):
    """The names under which an exchange has its state; in a checkpoint, and restored before the exchange is made."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._settled = False

    def settle(self, names: tuple[str, ...]) -> None:
        """Say which names the exchange has: what is restored from now on changes them no more."""
        self.names, self._settled = names, True

    def serialize(self) -> str:
        return json.dumps(self.names)

    def deserialize(self, string_value: bytes | str) -> None:
        """Take over saved names."""
        if not self._settled:
            self.names = tuple(json.loads(string_value))
