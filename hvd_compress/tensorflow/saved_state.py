"""SavedState: the state of an exchange as arrays, for files that know no TensorFlow variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ..errors import ConfigurationError
from .gradient_exchange import GradientExchange


@final
@dataclass(frozen=True)
class SavedState:
    """What an exchange remembers between steps.

    Args:
        origin: text of the exchange's `Origin`.
        step: steps done.
        names: of the variables, in order: those of a model that was loaded from a file can differ from what they were.
        leaves: arrays by parameter or unit, and path of the leaf.
    """

    origin: str
    step: int
    names: tuple[str, ...]
    leaves: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]

    @classmethod
    def of(cls, exchange: GradientExchange) -> SavedState:
        """Return copies of an exchange's state."""
        leaves = {
            name: {path: np.array(variable.numpy()) for path, variable in paths.items()}
            for name, paths in exchange.state.variables_by_name.items()
        }
        return cls(exchange.origin.serialize(), int(exchange.step.numpy()), exchange.names, leaves)

    def problem_for(self, exchange: GradientExchange) -> str | None:
        """Return why an exchange cannot go on from this state, or None; it is left as it is.

        Raises:
            ConfigurationError: the state is of another rank, world size, compressor or model; not while the exchange is
                being made, then that is what is returned.
        """
        exchange.origin.deserialize(self.origin)
        if exchange.origin.problem is not None:
            return exchange.origin.problem
        for name, paths in exchange.state.variables_by_name.items():
            for path, variable in paths.items():
                found = self.leaves.get(name, {}).get(path)
                if found is None or found.shape != tuple(variable.shape):
                    return f"The saved compression state of {name!r} has no {path!r} that fits."
        return None

    def restore(self, exchange: GradientExchange) -> None:
        """Assign the state to an exchange.

        Raises:
            ConfigurationError: it does not fit: see `problem_for`.
        """
        problem = self.problem_for(exchange)
        if problem is not None:
            raise ConfigurationError(problem)
        for name, paths in exchange.state.variables_by_name.items():
            for path, variable in paths.items():
                variable.assign(self.leaves[name][path])
        exchange.step.assign(self.step)
