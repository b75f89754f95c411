"""The plan: which parameters form which unit, how each unit travels, and which units travel together.

It is derived from names, shapes and settings alone, so it is equal on every rank; `digest` lets a driver check that.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

from ..contract import GRADIENT_DTYPES, Array, Codec, Operator, Spec, traffic_bytes
from ..errors import ConfigurationError
from ..operators import dense_operator, dense_stand_in, operator_of
from ..ops import ops_of
from ..version import __version__

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


@final
@dataclass(frozen=True)
class Plan:
    """Units in order, and the buckets of units whose payloads travel together.

    Args:
        compressor: what the user asked for.
        units: in the order in which they are exchanged.
        buckets: positions in `units`; every unit is in exactly one bucket.
        parameters: (name, spec) of all, in the order in which gradients are expected.
        settings: what else must be equal on all ranks, as (name, value).
    """

    compressor: Operator | Codec
    units: tuple[Unit, ...]
    buckets: tuple[tuple[int, ...], ...]
    parameters: tuple[tuple[str, Spec], ...]
    settings: tuple[tuple[str, str], ...] = ()

    @cached_property
    def description(self) -> str:
        """Everything that must be equal on all ranks, one fact a line."""
        lines = [f"hvd_compress {__version__}", f"compression={self.compressor!r}"]
        lines += [f"{name}={value}" for name, value in self.settings]
        for bucket in self.buckets:
            lines.append("bucket")
            for i in bucket:
                unit = self.units[i]
                lines += [
                    f"{name}: {list(spec.shape)} {spec.dtype}, outputs on axis {spec.output_axis}"
                    for name, spec in unit.parameters
                ]
                lines.append(f"  travels by {unit.operator!r}")
        return "\n".join(lines)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that differ where `description` differs."""
        return hashlib.sha256(self.description.encode()).digest()

    def wire_bytes(self, world_size: int, step: int = 0) -> int:
        """Return the bytes that one worker sends at step `step`, from shapes alone."""
        return sum(traffic_bytes(u.operator.traffic(u.spec, world_size, step), world_size) for u in self.units)


def make_plan(
    compressor: Operator | Codec,
    parameters: Iterable[tuple[str, Spec]],
    world_size: int,
    *,
    allow_larger: bool = False,
    bucket_bytes: float = float("inf"),
    groups: Sequence[Sequence[str]] = (),
    settings: Mapping[str, object] | None = None,
) -> Plan:
    """Return the plan for the given parameters.

    Args:
        compressor: what the user asked for, an instance.
        parameters: (name, spec) in the order in which gradients are expected.
        world_size: number of workers.
        allow_larger: use the compressor also where it sends more than a plain average; otherwise those units travel
            dense, with a warning.
        bucket_bytes: close a bucket once its gradients reach this many bytes.
        groups: parameter names that must travel in one bucket, each group in one.
        settings: what else must be equal on all ranks.

    Raises:
        ConfigurationError: a name is used twice, or a gradient's element type is not a floating-point number.
    """
    parameters = list(parameters)
    _check_parameters(parameters)
    units = _make_units(compressor, parameters, world_size, allow_larger)
    _warn_of_larger(compressor, units, world_size)
    _check_unique("Unit name", (unit.name for unit in units))
    told = tuple((name, str(value)) for name, value in (settings or {}).items())
    return Plan(compressor, tuple(units), _make_buckets(units, bucket_bytes, groups), tuple(parameters), told)


def specs_of(gradients: Mapping[str, Array]) -> list[tuple[str, Spec]]:
    """Return (name, spec) of every gradient, in order."""
    found = ((name, g, ops_of(g)) for name, g in gradients.items())
    return [(name, Spec(ops.shape(g), ops.dtype(g), ops.output_axis)) for name, g, ops in found]


def _check_parameters(parameters: list[tuple[str, Spec]]) -> None:
    _check_unique("Parameter name", (name for name, _ in parameters))
    for name, spec in parameters:
        if spec.dtype not in GRADIENT_DTYPES:
            raise ConfigurationError(
                f"Parameter {name!r} is {spec.dtype}; gradients can be {', '.join(GRADIENT_DTYPES)}: leave it out of "
                "the optimizer or change its element type."
            )


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"{what} {name!r} is used twice; give every parameter a name of its own.")
        seen.add(name)


def _warn_of_larger(compressor: Operator | Codec, units: list[Unit], world_size: int) -> None:
    """Say so where a share of the model that matters travels dense because it would grow."""
    larger = [unit for unit in units if unit.passed_over == "larger"]
    share = sum(unit.spec.size for unit in larger) / max(1, sum(unit.spec.size for unit in units))
    if share > 0.01:
        warnings.warn(
            f"{compressor!r} would send more bytes than a plain average for {len(larger)} of {len(units)} units with "
            f"{world_size} workers, {share:.0%} of the model ({larger[0].name!r} is one), which therefore travel "
            "dense; pass allow_larger=True to compress them all the same.",
            stacklevel=4,
        )


def _make_units(
    compressor: Operator | Codec, parameters: list[tuple[str, Spec]], world_size: int, allow_larger: bool
) -> list[Unit]:
    """Return units: compressed ones of the operator's granularity, the others tensor by tensor."""
    units: list[Unit] = []
    runs: dict[tuple[Operator, str], list[tuple[str, Spec]]] = {}

    def close(key: tuple[Operator, str]) -> None:
        run = runs.pop(key)
        name = run[0][0] if len(run) == 1 else f"{run[0][0]}..{run[-1][0]}"
        joined = replace(run[0][1], shape=(sum(spec.size for _, spec in run),))
        units.append(_unit(name, tuple(run), joined, key[0], world_size, allow_larger))

    for name, spec in parameters:
        operator = operator_of(compressor, spec).for_parameter(name, spec)
        if spec.size == 0 or not operator.compresses(spec):
            stand_in = dense_stand_in(operator, spec) if spec.size else dense_operator(spec)
            units.append(Unit(name, ((name, spec),), spec, stand_in, "empty" if spec.size == 0 else "small"))
        elif operator.unit_bytes <= 0:
            units.append(_unit(name, ((name, spec),), spec, operator, world_size, allow_larger))
        else:
            key = (operator, spec.dtype)
            joined = sum(s.nbytes for _, s in runs.get(key, [])) + spec.nbytes
            if key in runs and joined > operator.unit_bytes:
                close(key)
            runs.setdefault(key, []).append((name, spec))
    for key in list(runs):
        close(key)
    return units


def _unit(
    name: str,
    parameters: tuple[tuple[str, Spec], ...],
    spec: Spec,
    operator: Operator,
    world_size: int,
    allow_larger: bool,
) -> Unit:
    """Return the unit, dense where the operator would send more than a plain average does."""
    dense = dense_stand_in(operator, spec)
    if not allow_larger and dense != operator and _bytes(operator, spec, world_size) > _bytes(dense, spec, world_size):
        return Unit(name, parameters, spec, dense, "larger")
    return Unit(name, parameters, spec, operator)


def _bytes(operator: Operator, spec: Spec, world_size: int) -> float:
    """Return the bytes that a worker sends in the long run; one worker alone is judged as if there were two."""
    world = max(world_size, 2)
    return sum(operator.wire_bytes(spec, world, step) for step in (LATE, LATE + 1)) / 2


def _tie_groups(units: list[Unit], group_of: dict[str, int]) -> dict[str, int]:
    """Return the group of every name, where groups that one unit of several parameters belongs to become one."""
    tied = {g: g for g in group_of.values()}
    for unit in units:
        members = {tied[group_of[name]] for name, _ in unit.parameters if name in group_of}
        tied = {g: min(members) if root in members else root for g, root in tied.items()}
    return {name: tied[g] for name, g in group_of.items()}


def _make_buckets(
    units: list[Unit], bucket_bytes: float, groups: Sequence[Sequence[str]]
) -> tuple[tuple[int, ...], ...]:
    group_of = _tie_groups(units, {name: g for g, names in enumerate(groups) for name in names})
    grouped: dict[int, list[int]] = {}
    loose: list[list[int]] = []
    filled = float("inf")
    for i, unit in enumerate(units):
        group = next((group_of[name] for name, _ in unit.parameters if name in group_of), None)
        if group is not None:
            grouped.setdefault(group, []).append(i)
            continue
        if filled >= bucket_bytes or not loose:
            loose.append([])
            filled = 0.0
        loose[-1].append(i)
        filled += unit.spec.nbytes
    return tuple(tuple(bucket) for bucket in [*grouped.values(), *loose])
