"""The contract of an operator: how a group of workers turns its gradients into one update.

An operator is a frozen dataclass of settings. `exchange` is a generator: it yields the collectives it needs
(`request.py`), is sent their results, and returns `Exchanged`. It neither knows nor cares which driver answers.

Buffers are donated: `exchange` may overwrite `grad` and the arrays in `state`; nobody uses them afterwards.
State goes in and comes out; nothing is kept on the operator. `traffic` declares, from shapes alone, exactly the
collectives that `exchange` will yield: wire bytes, plans and tables are derived from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final

from ..errors import StockOptimizerError
from .request import Array, Exchange
from .settings import Settings
from .spec import Spec
from .state import Leaves, State
from .traffic import Traffic, traffic_bytes

if TYPE_CHECKING:
    from ..ops import ArrayOps


Phase: TypeAlias = Hashable


@dataclass(frozen=True)
class Context:
    """Where and when an exchange happens.

    Args:
        ops: array operations of the library and device that hold the gradient.
        spec: of the gradient that is handed to `exchange`.
        name: the unit's name, equal on all ranks.
        step: steps done before this one, from 0; where one graph serves many steps, a 0-D int64 array.
        rank: this worker, 0 <= rank < world_size.
        world_size: number of workers.
        learning_rate: of the live optimizer at this step, a number or a 0-D float64 array; None where no optimizer
            is known.
        applied: false at a step whose update is not applied because its learning rate is 0.
        feedback: true if a wrapper will keep `Exchanged.rest`; without it computing the rest is wasted.
        memory_scale: what every memory of earlier losses is multiplied by before it is used: a number or a 0-D
            array; 1 unless a wrapper follows the step size. None at a step that is not applied: memories of losses
            are then neither used nor changed.
        parameter: the parameter that the gradient is of, in the gradient's shape; given to operators that ask for it
            by `needs_parameters`.
        spare: an array of the gradient's shape, in its element type, whose numbers nobody needs any more and that may
            become `Exchanged.mean`; None where there is none.
        phase_step: where `step` is an array, a step of the same phase (`Operator.phase`), as a number.
    """

    ops: ArrayOps
    spec: Spec
    name: str
    step: Any
    rank: int
    world_size: int
    learning_rate: Any = None
    applied: bool = True
    feedback: bool = False
    memory_scale: Any = 1.0
    parameter: Array | None = None
    spare: Array | None = None
    phase_step: int | None = None

    @property
    def built_for(self) -> int:
        """A step, as a number, at which the exchange is built as at this one: what decisions in Python may ask for."""
        return int(self.step) if self.phase_step is None else self.phase_step

    def with_feedback(self, spare: Array | None = None) -> Context:
        """Return the context under which a wrapper that keeps the rest, in wide numbers, calls its inner operator."""
        return replace(self, spec=self.spec.wide, feedback=True, spare=spare)


class Operator(Settings, ABC):
    """How a group of workers turns its gradients into one update.

    Subclasses are final and `@dataclass(frozen=True, repr=False)`.
    """

    @abstractmethod
    def exchange(self, grad: Array, state: State, context: Context) -> Exchange:
        """Yield rounds of requests and return `Exchanged`; `grad` and `state` are donated."""

    @abstractmethod
    def traffic(self, spec: Spec, world_size: int, step: int) -> Traffic:
        """Return the payloads of every round of `exchange` at step `step`, in the order they are yielded."""

    def leaves(self, spec: Spec, world_size: int) -> Leaves:
        """Return the declarations of the state that `exchange` takes and returns."""
        del spec, world_size
        return {}

    def compresses(self, spec: Spec) -> bool:
        """Return whether this operator is worth using for such a gradient; otherwise it travels dense."""
        del spec
        return True

    def dense(self, spec: Spec) -> Operator | None:
        """Return how a gradient travels that is not worth compressing; None stands for a plain average.

        An operator whose update means something else than an average returns what means the same.
        """
        del spec
        return None

    def for_parameter(self, name: str, spec: Spec) -> Operator:
        """Return the operator for this parameter: itself, unless it is a policy or wraps one."""
        del name, spec
        return self

    def phase(self, step: int) -> Phase:
        """Return what decides how `exchange` is built at a step: equal for steps that differ by numbers alone.

        One graph can serve all steps of a phase. It asks `Context.built_for`, not `Context.step`, where it decides.
        """
        del step
        return ()

    @property
    def phase_cycle(self) -> tuple[int, int]:
        """(start, period): from step `start` on, phases repeat every `period` steps."""
        return (0, 1)

    @property
    def needs_parameters(self) -> bool:
        """Whether `Context.parameter` must be given."""
        return False

    @property
    def needs_learning_rate(self) -> bool:
        """Whether `Context.learning_rate` must be given."""
        return False

    @property
    def has_momentum(self) -> bool:
        """Whether momentum is part of this operator, so that the optimizer must have none of its own."""
        return False

    @property
    def scales(self) -> bool:
        """Whether gradients c times as large make an update c times as large, as loss scaling takes for granted."""
        return True

    @property
    def bears_absence(self) -> bool:
        """Whether a rank that answers every allreduce with zeros, as one that has joined, counts as one of zeros."""
        return True

    @property
    def elementwise(self) -> bool:
        """Whether each element is exchanged as it would be by itself, and remembered in as many numbers of its own.

        Small tensors are then exchanged as one, whatever their names, parameters and learning rates are.
        """
        return False

    @property
    def block_length(self) -> int:
        """Elements of the consecutive blocks that are exchanged about as each would be by itself; 0: there are none.

        Small tensors of several blocks notice their neighbours at their ends only: where there are many, they are
        joined.
        """
        return 0

    @property
    def unit_bytes(self) -> float:
        """Tensors are flattened and joined into units of up to this many bytes.

        0: every tensor is a unit of its own, in its own shape; inf: the whole model is one flat unit.
        """
        return 0.0

    @final
    def wire_bytes(self, spec: Spec, world_size: int, step: int = 0) -> int:
        """Return the bytes that one worker sends at step `step` for one unit, from shapes alone."""
        return traffic_bytes(self.traffic(spec, world_size, step), world_size)

    # Horovod's own optimizer calls these two on whatever it is given, on a class or an instance. An operator may
    # need several rounds and state, which one allreduce between them cannot give: say so instead of failing later.

    @staticmethod
    def compress(tensor: Any) -> NoReturn:
        """Refuse: this is what Horovod's own optimizer calls."""
        del tensor
        raise StockOptimizerError(
            "This compressor needs more than one allreduce, which Horovod's own optimizer cannot do; change "
            "`import horovod.torch as hvd` to `import hvd_compress.torch as hvd` and leave the rest as it is."
        )

    @staticmethod
    def decompress(tensor: Any, ctx: Any) -> NoReturn:
        """Refuse, as `compress` does."""
        del ctx
        Operator.compress(tensor)
