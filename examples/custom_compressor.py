"""A codec and an operator of your own, and how others use them by name.

Run it with `python examples/custom_compressor.py`.

In a package of yours, an entry point takes the place of `register`:

    [project.entry-points."hvd_compress.compressors"]
    int8 = "your_package:Int8"
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvd_compress import Codec, ErrorFeedback, Operator, Simulator, Spec, register
from hvd_compress.contract import Array, Context, Exchange, Exchanged, Key, Mean, Payload, State, Traffic
from hvd_compress.ops import ArrayOps


@dataclass(frozen=True, repr=False)
class Int8(Codec):
    """Every element as a whole number from -127 to 127, times one scale for the tensor."""

    def encode(self, array: Array, ops: ArrayOps, key: Key = ()) -> tuple[Array, ...]:
        scale = ops.reshape(ops.row_maxima(ops.reshape(array, (1, -1))), (1,)) / 127 + 1e-30
        levels = array / scale
        return ops.cast(levels + ops.where(levels < 0, -0.5, 0.5), "int8"), ops.cast(scale, "float32")

    def decode(self, parts: tuple[Array, ...], spec: Spec, ops: ArrayOps) -> Array:
        levels, scale = parts
        return ops.reshape(ops.cast(ops.cast(levels, "float32") * scale, spec.dtype), spec.shape)

    def payload(self, spec: Spec) -> tuple[tuple[int, str], ...]:
        return ((spec.size, "int8"), (1, "float32"))

    def summable(self, spec: Spec) -> bool:
        return False  # every rank has a scale of its own, so the numbers travel by alltoall and allgather


@dataclass(frozen=True, repr=False)
class CyclicSlice(Operator):
    """At step t, average slice t mod `parts` of the gradient and send nothing of the others."""

    parts: int = 4

    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        ops, shape = context.ops, context.spec.shape
        flat = ops.flatten(grad)
        before, chosen, after = ops.split(flat, self._sizes(context.spec.size, context.step))
        (mean,) = yield [Mean(chosen)]
        zeros = [ops.zeros(ops.shape(piece), ops.dtype(piece)) for piece in (before, chosen, after)]
        everywhere = ops.concat([zeros[0], mean, zeros[2]])
        rest = ops.concat([before, zeros[1], after])  # what this rank has not sent: an ErrorFeedback around us keeps it
        return Exchanged(ops.reshape(everywhere, shape), ops.reshape(rest, shape), state)

    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        return ((Payload(Mean, self._sizes(spec.size, step)[1], spec.dtype),),)

    def _sizes(self, size: int, step: int) -> list[int]:
        turn = step % self.parts
        start, stop = size * turn // self.parts, size * (turn + 1) // self.parts
        return [start, stop - start, size - stop]


def main() -> None:
    register("int8", Int8)
    register("cyclic-slice", lambda: ErrorFeedback(CyclicSlice(parts=4)))
    shape, workers, steps = (20, 30), 3, 40
    gradients = [{"weight": np.random.default_rng(rank).standard_normal(shape)} for rank in range(workers)]
    wanted = np.mean([own["weight"] for own in gradients], axis=0)
    for name in ("int8", "cyclic-slice"):
        simulator = Simulator(name, workers)
        total = sum(simulator.step(gradients)[0]["weight"] for _ in range(steps))
        error = np.linalg.norm(total / steps - wanted) / np.linalg.norm(wanted)
        print(f"{name}: mean of {steps} steps off by {error:.2%}, {simulator.sent_bytes // steps:,} bytes a step")
        print(f"  dense would be {2 * (workers - 1) * wanted.nbytes // workers:,} bytes a step")


if __name__ == "__main__":
    main()
