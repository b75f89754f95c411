"""CompressionState: what compression remembers of variables, found again by every tape over the same ones."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from ..contract import Codec, Operator
from ..errors import UsageError
from .identity import identity, variable_of
from .naming import variable_names
from .variable_exchange import Variable, VariableExchange


@final
@dataclass(frozen=True)
class Asked:
    """What a tape was asked for: tapes that were asked for the same share a state.

    Args:
        compressor: an instance.
        options: of `VariableExchange`, by name; variables by `id`.
        process_set_id: Horovod's.
        local: ids of variables whose gradients stay on this rank.
    """

    compressor: Operator | Codec
    options: tuple[tuple[str, Any], ...]
    process_set_id: int
    local: frozenset[int]


@final
class CompressionState(tf.Module):
    """What the exchange of one tape's gradients remembers between steps: residuals, factors, the step count.

    A tape finds the state of its variables by itself. Make one and pass it as `state=` to every tape to have it in a
    checkpoint: `tf.train.Checkpoint(model=model, optimizer=optimizer, compression=state)`; every rank saves and
    restores its own. It is empty until the first step, and can be restored before. One state is for one list of
    variables and one compressor.
    """

    def __init__(self) -> None:
        super().__init__(name="hvd_compress_state")
        self.exchange: VariableExchange | None = None
        self._owner: _Owner | None = None

    @property
    def remembers(self) -> bool:
        """Whether there is anything that would be missed."""
        made = None if self.exchange is None else self.exchange.exchange
        return made is not None and bool(made.state.variables_by_name)

    def variables_in_order(self, sources: Sequence[Variable]) -> list[Variable]:
        """Return a tape's sources, each once, in the order of the first tape that used this state."""
        unique = list({identity(v): v for v in sources}.values())
        if self._owner is None:
            return unique
        places = {number: place for place, number in enumerate(self._owner.ids)}
        return sorted(unique, key=lambda v: places.get(identity(v), len(places)))

    def exchange_for(self, sources: Sequence[Variable], asked: Asked, make: Any) -> VariableExchange:
        """Return the exchange of these variables, by `make()` where there is none yet.

        Raises:
            UsageError: the state is that of other variables or settings.
        """
        if self._owner is None or self.exchange is None:
            with tf.init_scope():
                self.exchange = make()
            self._owner = _Owner(tuple(identity(v) for v in sources), asked)
            return self.exchange
        if set(self._owner.ids) != {identity(v) for v in sources}:
            names = variable_names(sources)
            new = [name for name, v in zip(names, sources, strict=True) if identity(v) not in self._owner.ids]
            change = f"{new} are new" if new else f"only {names} are left"
            raise UsageError(
                f"This CompressionState is that of other variables: {change}; take the gradients of the same variables "
                "at every step, and make another hvd.CompressionState() where they change."
            )
        if self._owner.asked != asked:
            raise UsageError(
                f"This CompressionState belongs to a tape with {self._owner.asked.compressor!r} and its settings, not "
                f"to one with {asked.compressor!r}; give tapes that differ a hvd.CompressionState() each."
            )
        return self.exchange

    @property
    def asked(self) -> Asked | None:
        """What the first tape that used this state was asked for."""
        return None if self._owner is None else self._owner.asked


@final
@dataclass(frozen=True)
class _Owner:
    """Whose state it is: ids of variables, since a state must not keep a model alive."""

    ids: tuple[int, ...]
    asked: Asked


# By the ids of all variables; an entry goes when one of its variables does, so that no id is used again before.
_found: dict[frozenset[int], list[CompressionState]] = {}


def state_of(sources: Sequence[Variable], asked: Asked) -> CompressionState:
    """Return the state of these variables for tapes that are asked for the same; an empty one at first."""
    key = frozenset(identity(v) for v in sources)
    if key not in _found:
        _found[key] = []
        for variable in {identity(v): variable_of(v) for v in sources}.values():
            weakref.finalize(variable, _found.pop, key, None).atexit = False
    for state in _found[key]:
        if state.asked == asked:
            return state
    state = CompressionState()
    _found[key].append(state)
    return state


def warn_of_another(state: CompressionState, sources: Sequence[Variable]) -> None:
    """Say so where a new state remembers what another state of the same variables remembers already."""
    if not state.remembers:
        return
    ids = {identity(v) for v in sources}
    for key, states in list(_found.items()):
        shared = ids & key
        other = next((s for s in states if s is not state and s.remembers), None)
        if not shared or other is None or other.asked is None or state.asked is None:
            continue
        name = next(name for name, v in zip(variable_names(sources), sources, strict=True) if identity(v) in shared)
        warnings.warn(
            f"A tape with {state.asked.compressor!r} starts with empty residuals for {name!r}, whose residual under "
            f"{other.asked.compressor!r} stays with another tape's variables or settings; if both are meant, pass each "
            "a state=hvd.CompressionState() of its own.",
            stacklevel=4,
        )
        return
