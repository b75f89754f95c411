"""The plan: how each unit travels, and which units travel together.

It is derived from names, shapes and settings alone, so it is equal on every rank; `digest` lets a driver check that.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from ..contract import GRADIENT_DTYPES, Array, Codec, Operator, Spec, traffic_bytes
from ..errors import ConfigurationError
from ..ops import ops_of
from ..version import __version__
from .buckets import make_buckets
from .units import Unit, make_units

# From here on copying a gradient next to others and back takes longer than asking for a collective of its own, which
# Horovod joins with others that are asked for at about the same time, on a thread of its own.
APART_BYTES = 2**17


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
        apart_bytes: from which gradients that are averaged as they are travel apart, in place.
    """

    compressor: Operator | Codec
    units: tuple[Unit, ...]
    buckets: tuple[tuple[int, ...], ...]
    parameters: tuple[tuple[str, Spec], ...]
    settings: tuple[tuple[str, str], ...] = ()
    apart_bytes: float = APART_BYTES

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
    kinds: Mapping[str, Hashable] | None = None,
    settings: Mapping[str, object] | None = None,
    apart_bytes: float = APART_BYTES,
) -> Plan:
    """Return the plan for the given parameters.

    Args:
        compressor: what the user asked for, an instance.
        parameters: (name, spec) in the order in which gradients are expected.
        world_size: number of workers.
        allow_larger: use the compressor also where it sends more than a plain average; otherwise those units travel
            dense, with a warning.
        bucket_bytes: close a bucket once its gradients reach this many bytes, or earlier where they are sent as many
            bytes (`buckets.py`).
        groups: parameter names that must travel in one bucket, each group in one.
        kinds: what parameters must have in common to be joined where nobody asked for it: a learning rate, a device.
        settings: what else must be equal on all ranks.
        apart_bytes: from which gradients that are averaged as they are travel apart.

    Raises:
        ConfigurationError: a name is used twice, or a gradient's element type is not a floating-point number.
    """
    parameters = list(parameters)
    _check_parameters(parameters)
    group_of = {name: g for g, names in enumerate(groups) for name in names}
    alike = {name: ((kinds or {}).get(name), group_of.get(name)) for name, _ in parameters}
    units = make_units(compressor, parameters, world_size, allow_larger, alike)
    _warn_of_larger(compressor, units, world_size)
    _check_unique("Unit name", (unit.name for unit in units))
    told = tuple((name, str(value)) for name, value in (settings or {}).items())
    buckets = make_buckets(units, bucket_bytes, group_of, world_size)
    return Plan(compressor, tuple(units), buckets, tuple(parameters), told, apart_bytes)


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
