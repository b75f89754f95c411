"""SliceProjection: slices of the gradient in the principal axes of earlier ones, in one allreduce of coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..contract import (
    Array,
    Context,
    Exchange,
    Exchanged,
    Fill,
    Leaf,
    Leaves,
    Mean,
    Meanwhile,
    Operator,
    Payload,
    Phase,
    Scope,
    Spec,
    State,
    Traffic,
    check_at_least,
    check_finite,
)
from ..errors import ConfigurationError
from ..ops import ArrayOps
from .carry import dense_operator


@final
@dataclass(frozen=True, repr=False)
class SliceProjection(Operator):
    """Project every slice of K gradient elements on its D leading principal axes, learnt at dense steps now and then.

    S = the mean gradient, flat, filled up with zeros to rows of K. In steps 0 .. collect - 1 of every `period` steps
    it travels dense and adds S^T S to a covariance that starts from zero at step 0; the last of them makes its D
    leading eigenvectors the basis B. At all other steps mean = S B B^T, and only the coordinates S B travel: one
    allreduce of ceil(d/K) D numbers. Linear; rest = S_i - S_i B B^T.

    Steps are those of the whole training, also after a warm-up. Until the first basis is made, random directions take
    its place; a dense step that is not finite is left out of the covariance, and where nothing but zeros was collected
    the basis stays what it was. The covariance is float64, as squares of float32 gradients can be out of range. Every
    rank finds B by itself, from equal numbers: ranks must run on equal hardware.

    Args:
        slice_length: K >= 1, elements.
        dims: D, from 1 to K.
        period: steps from one start of collecting to the next, >= collect.
        collect: dense steps in every period, >= 1.
        min_saving: project a tensor of two or more dimensions only where ceil(d/K) D min_saving < d; 0: all of them.

    Raises:
        ConfigurationError: a setting is out of range.

    Source: Yu, Lin, Narra, Li, Li, Kim, Schwing, Annavaram, Avestimehr 2018 (GradiVeQ, arXiv:1811.03617).
    """

    slice_length: int = 512
    dims: int = 64
    period: int = 500
    collect: int = 100
    min_saving: float = 1.0

    def __post_init__(self) -> None:
        for name in ("slice_length", "dims", "period", "collect"):
            check_at_least(self, name, getattr(self, name), 1)
        check_finite(self, "min_saving", self.min_saving, 0.0)
        for name, bound in (("dims", "slice_length"), ("collect", "period")):
            value, largest = getattr(self, name), getattr(self, bound)
            if value > largest:
                raise ConfigurationError(
                    f"{type(self).__name__}({name}={value!r}): {name} must be at most {bound}={largest!r}."
                )

    def compresses(self, spec: Spec) -> bool:
        saved = self._slices(spec) * self.dims * self.min_saving < spec.size
        return len(spec.shape) >= 2 and spec.size > 0 and saved

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        length = self.slice_length
        return {
            "covariance": Leaf((length, length), "float64", Scope.REPLICATED),
            "basis": Leaf((self.dims, length), spec.wide.dtype, Scope.REPLICATED, Fill.ORTHONORMAL),
        }

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        if context.built_for % self.period < self.collect:
            result = yield from dense_operator(context.spec).exchange(grad, {}, context)
            return Exchanged(result.mean, result.rest, self._collected(result.mean, state, context))
        ops, spec, basis = context.ops, context.spec, state["basis"]
        slices = self._rows(ops.cast(grad, spec.wide.dtype), ops)
        local = ops.matmul(basis, slices, transpose_b=True)

        def rest() -> Array | None:
            return self._joined(ops.subtract_product_(slices, local, basis), spec, ops) if context.feedback else None

        coordinates, unsent = yield [Mean(local, donate=not context.feedback), Meanwhile(rest)]
        mean = self._joined(ops.matmul(coordinates, basis, transpose_a=True), spec, ops)
        return Exchanged(mean, unsent, state)

    def phase(self, step: int) -> Phase:
        place = step % self.period
        return (place == 0, place < self.collect, place == self.collect - 1)

    @property
    def phase_cycle(self) -> tuple[int, int]:
        return (0, self.period)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        if step % self.period < self.collect:
            return dense_operator(spec).traffic(spec, world_size, step)
        return ((Payload(Mean, self._slices(spec) * self.dims, spec.wide.dtype),),)

    def _collected(self, mean: Array, state: State, context: Context) -> State:
        """Return the state after a dense step."""
        ops, phase = context.ops, context.built_for % self.period
        wide = ops.cast(mean, "float64")
        # One element that is not finite makes all of them NaN, and NaN counts as zero.
        rows = self._rows(ops.finite_or_zero_(wide + ops.sum(wide * 0.0)), ops)
        product = ops.matmul(rows, rows, transpose_a=True)
        covariance = product if phase == 0 else ops.add_(state["covariance"], product)
        basis = state["basis"]
        if phase == self.collect - 1:
            axes = ops.cast(ops.leading_left_vectors(covariance, self.dims), ops.dtype(basis))
            basis = ops.where(ops.max(ops.abs(covariance)) > 0.0, axes, basis)
        return {"covariance": covariance, "basis": basis}

    def _slices(self, spec: Spec) -> int:
        return -(-spec.size // self.slice_length)

    def _rows(self, x: Array, ops: ArrayOps) -> Array:
        """Return x as rows of one slice each; a view where that is possible."""
        flat = ops.flatten(x)
        count = -(-ops.shape(flat)[0] // self.slice_length)
        return ops.reshape(ops.padded(flat, count * self.slice_length), (count, self.slice_length))

    def _joined(self, rows: Array, spec: Spec, ops: ArrayOps) -> Array:
        """Return rows of one slice each in the gradient's shape and element type."""
        return ops.cast(ops.reshape(ops.flatten(rows)[: spec.size], spec.shape), spec.dtype)
