"""Units: which parameters are exchanged as one, and how.

Derived from names, shapes and settings alone, so equal on every rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from ..contract import Codec, Operator, Spec
from ..operators import dense_operator, dense_stand_in, operator_of

# A step by which warm-ups and schedules have ended; even, so that it and the next one are a period of two.
LATE = 2**40


@final
@dataclass(frozen=True)
class Unit:
    """What one exchange works on.

    Args:
        name: of its parameter, or "first..last" of several.
        parameters: (name, spec) of each, in order; several are flattened and joined.
        spec: of the gradient that the operator sees.
        operator: how it travels.
        passed_over: why the compressor was not used: "small" (not worth it), "larger" (it would send more than a
            plain average), "empty"; "" where it is used.
    """

    name: str
    parameters: tuple[tuple[str, Spec], ...]
    spec: Spec
    operator: Operator
    passed_over: str = ""

    @property
    def dense(self) -> bool:
        """Whether the compressor was passed over."""
        return bool(self.passed_over)


# Tensors of up to so many bytes are small. Where there are more than so many whose operator works in blocks, they are
# joined into units of up to so many bytes: each of them would take longer by itself than its bytes are worth.
SMALL = 2**16
MANY, _JOINED = 64, 2.0**22
# Blocks that a tensor has at least to be joined with others: those at its ends may reach over them.
_BLOCKS = 4

Parameter = tuple[str, Spec]


def late_bytes(operator: Operator, spec: Spec, world_size: int) -> float:
    """Return the bytes that a worker sends at a step in the long run."""
    return sum(operator.wire_bytes(spec, world_size, step) for step in (LATE, LATE + 1)) / 2


@final
@dataclass(frozen=True)
class _Run:
    """What the tensors of a joined unit have in common.

    Args:
        operator: how they travel.
        dtype: element type.
        kind: whatever else tells those apart that nobody asked to join.
        limit: bytes of a unit, > 0.
    """

    operator: Operator
    dtype: str
    kind: Hashable
    limit: float


def make_units(
    compressor: Operator | Codec,
    parameters: Sequence[Parameter],
    world_size: int,
    allow_larger: bool,
    kinds: Mapping[str, Hashable],
) -> list[Unit]:
    """Return units: compressed ones of the operator's granularity, the others tensor by tensor.

    Args:
        compressor: what the user asked for.
        parameters: in the order in which gradients are expected.
        world_size: number of workers.
        allow_larger: compress also what does not become smaller.
        kinds: small tensors are joined of the plan's own accord only where these are equal.
    """
    chosen = [operator_of(compressor, spec).for_parameter(name, spec) for name, spec in parameters]
    runs = _runs(parameters, chosen, kinds)
    units: list[Unit] = []
    filled: dict[_Run, list[Parameter]] = {}
    for (name, spec), operator, run in zip(parameters, chosen, runs, strict=True):
        if _is_dense(operator, spec):
            stand_in = dense_stand_in(operator, spec) if spec.size else dense_operator(spec)
            units.append(Unit(name, ((name, spec),), spec, stand_in, "empty" if spec.size == 0 else "small"))
        elif run is None:
            units.append(_unit(((name, spec),), spec, operator, world_size, allow_larger))
        else:
            if run in filled and sum(s.nbytes for _, s in filled[run]) + spec.nbytes > run.limit:
                units.append(_joined(filled.pop(run), run.operator, world_size, allow_larger))
            filled.setdefault(run, []).append((name, spec))
    units += [_joined(members, run.operator, world_size, allow_larger) for run, members in filled.items()]
    return units


def _runs(
    parameters: Sequence[Parameter], chosen: Sequence[Operator], kinds: Mapping[str, Hashable]
) -> list[_Run | None]:
    """Return what each parameter is joined by: its operator, or the plan where there are many small ones."""

    def found() -> Iterator[_Run | None]:
        for (name, spec), operator in zip(parameters, chosen, strict=True):
            if _is_dense(operator, spec):
                yield None
            elif operator.unit_bytes > 0:
                yield _Run(operator, spec.dtype, None, operator.unit_bytes)
            elif spec.nbytes <= SMALL and _may_be_joined(operator, spec):
                yield _Run(operator, spec.dtype, (kinds.get(name),), _JOINED)
            else:
                yield None

    runs = list(found())
    members = Counter(run for run in runs if run is not None)
    return [run if run is None or run.kind is None or members[run] > MANY else None for run in runs]


def _is_dense(operator: Operator, spec: Spec) -> bool:
    """Return whether there is nothing to compress, or nothing that is worth it."""
    return spec.size == 0 or not operator.compresses(spec)


def _may_be_joined(operator: Operator, spec: Spec) -> bool:
    """Return whether it matters little where such a tensor ends and the next begins."""
    # What is exchanged by element is joined at every step anew, without a say in what units and states are.
    return not operator.elementwise and 0 < _BLOCKS * operator.block_length <= spec.size


def _joined(members: list[Parameter], operator: Operator, world_size: int, allow_larger: bool) -> Unit:
    spec = replace(members[0][1], shape=(sum(spec.size for _, spec in members),))
    return _unit(tuple(members), spec, operator, world_size, allow_larger)


def _unit(
    parameters: tuple[Parameter, ...], spec: Spec, operator: Operator, world_size: int, allow_larger: bool
) -> Unit:
    """Return the unit, dense where the operator would send more than a plain average does."""
    name = parameters[0][0] if len(parameters) == 1 else f"{parameters[0][0]}..{parameters[-1][0]}"
    dense = dense_stand_in(operator, spec)
    # One worker alone is judged as if there were two.
    world = max(world_size, 2)
    if not allow_larger and dense != operator and late_bytes(operator, spec, world) > late_bytes(dense, spec, world):
        return Unit(name, parameters, spec, dense, "larger")
    return Unit(name, parameters, spec, operator)
