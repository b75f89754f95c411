"""A policy: rules that choose a compressor for each parameter when the model is planned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, final

from ..contract import Array, Codec, Context, Exchange, Leaves, Operator, Phase, Spec, State, Traffic, check_compressor
from ..errors import ConfigurationError, UsageError
from ..operators import operator_of


@dataclass(frozen=True, repr=False)
class Policy(Operator):
    """Choose by the first rule that a parameter meets; subclasses say what meets a rule.

    A policy never exchanges anything itself: a plan puts what it chose in its place, also inside wrappers.

    Args:
        rules: (condition, operator or codec) pairs, or a mapping of these, in the order in which they are tried.
        otherwise: operator or codec for parameters that meet no rule.
    """

    rules: tuple[tuple[Any, Operator | Codec], ...]
    otherwise: Operator | Codec

    def __post_init__(self) -> None:
        given = self.rules.items() if isinstance(self.rules, Mapping) else self.rules
        try:
            object.__setattr__(self, "rules", tuple((condition, compressor) for condition, compressor in given))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{type(self).__name__}(rules={self.rules!r}): rules must be (condition, compressor) pairs."
            ) from error
        for condition, compressor in self.rules:
            self.check_condition(condition)
            check_compressor(self, compressor)
        check_compressor(self, self.otherwise)

    @abstractmethod
    def check_condition(self, condition: Any) -> None:
        """Raise ConfigurationError unless this can be the condition of a rule."""

    @abstractmethod
    def meets(self, condition: Any, name: str, spec: Spec) -> bool:
        """Return whether a parameter meets the condition of a rule."""

    @final
    def for_parameter(self, name: str, spec: Spec) -> Operator:
        met = (compressor for condition, compressor in self.rules if self.meets(condition, name, spec))
        return operator_of(next(met, self.otherwise), spec).for_parameter(name, spec)

    @property
    @final
    def needs_parameters(self) -> bool:
        return any(choice.needs_parameters for choice in self._operators)

    @property
    @final
    def needs_learning_rate(self) -> bool:
        return any(choice.needs_learning_rate for choice in self._operators)

    @final
    def phase(self, step: int) -> Phase:
        self._refuse()

    @property
    @final
    def phase_cycle(self) -> tuple[int, int]:
        self._refuse()

    @property
    @final
    def has_momentum(self) -> bool:
        return any(choice.has_momentum for choice in self._operators)

    @property
    @final
    def scales(self) -> bool:
        return all(choice.scales for choice in self._operators)

    @property
    @final
    def bears_absence(self) -> bool:
        return all(choice.bears_absence for choice in self._operators)

    @property
    @final
    def unit_bytes(self) -> float:
        self._refuse()

    @final
    def compresses(self, spec: Spec) -> bool:
        self._refuse()

    @final
    def dense(self, spec: Spec) -> Operator | None:
        self._refuse()

    @final
    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        self._refuse()

    @final
    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        self._refuse()

    @final
    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        self._refuse()

    @property
    def _operators(self) -> list[Operator]:
        choices = [*(compressor for _, compressor in self.rules), self.otherwise]
        return [choice for choice in choices if isinstance(choice, Operator)]

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{self!r} chooses a compressor for each parameter and is none itself; ask "
            "for_parameter(name, spec) which one it chooses."
        )
