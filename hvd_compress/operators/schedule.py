"""Schedule: one compressor after another, by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, final

from ..contract import (
    GRADIENT_DTYPES,
    Array,
    Codec,
    Context,
    Exchange,
    Leaf,
    Leaves,
    Operator,
    Phase,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_compressor,
    walk,
)
from ..errors import ConfigurationError
from ..ops import ArrayOps
from .carry import dense_stand_in, operator_of
from .joined import Joined

Phases = tuple[tuple[int, Operator | Codec], ...]


@final
@dataclass(frozen=True, repr=False)
class Schedule(Operator):
    """Use one compressor up to a step and another from there on: C_t = C_j for s_j <= t < s_(j+1), s_0 = 0.

    State that several phases declare equally is one and the same for them, so that residuals and momentum go on
    across a change; what differs, such as the factor of another rank, is each phase's own and starts fresh. A phase
    without a residual leaves that of the others as it is. A gradient is compressed if any phase compresses it; in
    the phases that do not, it travels dense.

    Args:
        phases: (first step, operator or codec) in ascending order, the first at step 0; or a mapping of these.

    Raises:
        ConfigurationError: phases are empty, out of order or not from step 0 on; or, when a model is planned, they
            differ in how they join tensors.
    """

    phases: Phases

    def __post_init__(self) -> None:
        given = self.phases.items() if isinstance(self.phases, Mapping) else self.phases
        object.__setattr__(self, "phases", tuple((start, compressor) for start, compressor in given))
        starts = [start for start, _ in self.phases]
        for start, compressor in self.phases:
            check_at_least(self, "phases", start, 0)
            check_compressor(self, compressor)
        if starts[:1] != [0] or starts != sorted(set(starts)):
            raise ConfigurationError(
                f"Schedule(phases={self.phases!r}): phases must begin at step 0 and go on at later and later steps."
            )

    @staticmethod
    def of(compressor: Operator | Codec, **settings: Mapping[int, Any]) -> Schedule:
        """Return the schedule of a compressor some of whose settings change.

        Args:
            compressor: with the settings that hold until the first change.
            settings: for each setting that changes, its value by the step from which it holds, as in
                `Schedule.of(PowerSGD(rank=1), rank={1000: 2, 5000: 4})`.

        Raises:
            ConfigurationError: the compressor has no such setting, or its value is out of range.
        """
        if not isinstance(compressor, (Operator, Codec)):
            raise ConfigurationError(
                f"Schedule.of({compressor!r}): give a compressor, an instance such as PowerSGD(rank=1)."
            )
        changed: Any = compressor
        known = {field.name for field in fields(changed)}
        for name in settings:
            if name not in known:
                raise ConfigurationError(
                    f"{type(compressor).__name__} has no setting {name!r}; it has {', '.join(sorted(known))}."
                )
        phases: dict[int, Operator | Codec] = {}
        for start in sorted({0, *(start for values in settings.values() for start in values)}):
            changes = {name: values[start] for name, values in settings.items() if start in values}
            changed = replace(changed, **changes)
            phases[start] = changed
        return Schedule(tuple(phases.items()))

    def compresses(self, spec: Spec) -> bool:
        return any(operator_of(compressor, spec).compresses(spec) for _, compressor in self.phases)

    def dense(self, spec: Spec) -> Operator | None:
        operators = [(start, operator_of(compressor, spec)) for start, compressor in self.phases]
        if all(operator.dense(spec) is None for _, operator in operators):
            return None
        return Schedule(tuple((start, dense_stand_in(operator, spec)) for start, operator in operators))

    def for_parameter(self, name: str, spec: Spec) -> Operator:
        """Return the phases' operators for this parameter, whose own shape says which of them compress it."""
        operators = [(start, operator_of(c, spec).for_parameter(name, spec)) for start, c in self.phases]
        if any(operator.compresses(spec) for _, operator in operators):
            operators = [(start, o if o.compresses(spec) else _stand_in(o, spec)) for start, o in operators]
        given = [(start, operator_of(c, spec)) for start, c in self.phases]
        return self if operators == given else Schedule(tuple(operators))

    @property
    def scales(self) -> bool:
        return all(not c.votes if isinstance(c, Codec) else c.scales for _, c in self.phases)

    @property
    def bears_absence(self) -> bool:
        return all(isinstance(c, Codec) or c.bears_absence for _, c in self.phases)

    @property
    def needs_parameters(self) -> bool:
        return any(c.needs_parameters for _, c in self.phases if isinstance(c, Operator))

    def phase(self, step: int) -> Phase:
        index = self._index(step)
        _, compressor = self.phases[index]
        return (index, compressor.phase(step) if isinstance(compressor, Operator) else ())

    @property
    def phase_cycle(self) -> tuple[int, int]:
        start, last = self.phases[-1]
        settled, period = last.phase_cycle if isinstance(last, Operator) else (0, 1)
        return max(start, settled), period

    @property
    def needs_learning_rate(self) -> bool:
        return any(c.needs_learning_rate for _, c in self.phases if isinstance(c, Operator))

    @property
    def has_momentum(self) -> bool:
        return any(c.has_momentum for _, c in self.phases if isinstance(c, Operator))

    @property
    def unit_bytes(self) -> float:
        found = {c.unit_bytes if isinstance(c, Operator) else 0.0 for _, c in self.phases}
        if len(found) > 1:
            raise ConfigurationError(
                f"{self!r}: its phases join tensors to units of {', '.join(f'{x:g}' for x in sorted(found))} bytes; "
                "use compressors of one granularity, or Warmup for dense first steps."
            )
        return found.pop()

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        phases = [(start, o.leaves(spec, world_size)) for start, o in self._operators(spec)]
        differing = _differing(phases)
        merged: dict[str, Any] = {}
        for start, tree in phases:
            _put(merged, tree, differing, start)
        return merged

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        spec = context.spec
        operators = self._operators(spec)
        phases = [(start, o.leaves(spec, context.world_size)) for start, o in operators]
        differing, now = _differing(phases), self._index(context.built_for)
        start, declared = phases[now]
        own = _picked(state, declared, differing, start)
        result = yield from operators[now][1].exchange(grad, own, context)
        kept = _copied(state)
        _put(kept, result.state, differing, start)
        for path in differing:
            # An overflow at the last step of a phase has no next step that would mend the phase's own state.
            _mend(kept, f"{path}@{start}".split("."), context.ops)
        return replace(result, state=kept)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return self._operators(spec)[self._index(step)][1].traffic(spec, world_size, step)

    def _index(self, step: int) -> int:
        return sum(start <= step for start, _ in self.phases) - 1

    def _operators(self, spec: Spec) -> list[tuple[int, Operator]]:
        """Return (first step, operator) of every phase."""
        return [(start, operator_of(compressor, spec)) for start, compressor in self.phases]


def _stand_in(operator: Operator, spec: Spec) -> Operator:
    """Return how a gradient travels in a phase that does not compress it, in units like those of the others."""
    dense = dense_stand_in(operator, spec)
    return Joined(dense, operator.unit_bytes / 1e6) if operator.unit_bytes > 0 else dense


# A leaf that phases declare differently is kept as "name@first step", one for each phase.


def _differing(phases: list[tuple[int, Leaves]]) -> set[str]:
    """Return the paths of leaves that phases declare differently."""
    found: dict[str, set[Leaf]] = {}
    for _, tree in phases:
        for path, leaf in walk(tree):
            found.setdefault(path, set()).add(leaf)
    return {path for path, leaves in found.items() if len(leaves) > 1}


def _put(into: dict[str, Any], tree: Mapping[str, Any], differing: set[str], start: int, prefix: str = "") -> None:
    """Put a phase's tree, of declarations or of arrays, into the tree that holds those of all phases."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            _put(into.setdefault(key, {}), value, differing, start, f"{path}.")
        else:
            into[f"{key}@{start}" if path in differing else key] = value


def _picked(state: State, declared: Leaves, differing: set[str], start: int, prefix: str = "") -> State:
    """Return one phase's state out of that of all phases."""
    own: State = {}
    for key, leaf in declared.items():
        path = f"{prefix}{key}"
        if isinstance(leaf, Leaf):
            own[key] = state[f"{key}@{start}" if path in differing else key]
        else:
            own[key] = _picked(state[key], leaf, differing, start, f"{path}.")
    return own


def _mend(state: State, path: list[str], ops: ArrayOps) -> None:
    """Put zeros for what is not finite in the leaf of that path, if the phase has it."""
    key, *more = path
    if key in state and more:
        _mend(state[key], more, ops)
    elif key in state and ops.dtype(state[key]) in GRADIENT_DTYPES:
        state[key] = ops.finite_or_zero_(ops.copy(state[key]))


def _copied(state: State) -> State:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in state.items()}
