"""Simulator: W workers in lockstep in one process, with no communication library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from ..contract import AllGather, AllToAll, Array, Broadcast, Codec, Collective, Max, Mean, Operator, Spec, Sum, Swap
from ..errors import ConfigurationError, RankDisagreementError, UsageError
from ..exchange import BucketExchange, Fused, Plan, Residual, Worker, make_plan, specs_of
from ..monitors import Similarity, similarities, similarities_of
from ..ops import ops_of
from ..registry import resolve


@final
class Simulator:
    """Exchanges gradients among `world_size` workers in one process, exactly as they would over a network.

    Args:
        compression: an instance, class, factory or name.
        world_size: number of workers, >= 1.
        bucket_bytes: gradients that travel together, at most about this many bytes.
        learning_rate: of the coming steps, for methods that need it; may be assigned anew.
        parameters: the replicas' parameters by name, for methods that need them; may be assigned anew.
        allow_larger: compress also where that sends more than a plain average.

    Raises:
        ConfigurationError: world_size is not positive, or the compression cannot be resolved.
    """

    def __init__(
        self,
        compression: Operator | Codec | type | str | Any,
        world_size: int,
        *,
        bucket_bytes: float = float("inf"),
        learning_rate: float | None = None,
        parameters: Mapping[str, Array] | None = None,
        allow_larger: bool = False,
    ) -> None:
        if world_size < 1:
            raise ConfigurationError(f"world_size={world_size}: give at least one worker.")
        self.compressor = resolve(compression)
        self.world_size = world_size
        self.learning_rate = learning_rate
        self.parameters = parameters
        self.workers: list[Worker] = []
        self._bucket_bytes = bucket_bytes
        self._allow_larger = allow_larger

    def step(
        self, gradients: Sequence[Mapping[str, Array]], *, order: Sequence[int] | None = None
    ) -> list[dict[str, Array]]:
        """Return, for each worker, the mean gradient by parameter name.

        Args:
            gradients: for each worker, gradients by parameter name: NumPy arrays or torch tensors, left untouched.
            order: the order in which workers do their work within a round; it makes no difference.

        Raises:
            ConfigurationError: the number of workers or the gradients do not fit.
            RankDisagreementError: workers ask for different collectives.
        """
        if len(gradients) != self.world_size:
            raise ConfigurationError(f"{len(gradients)} gradients were given for {self.world_size} workers.")
        self.set_up(gradients)
        copies = [{name: ops_of(g).copy(g) for name, g in own.items()} for own in gradients]
        means: list[dict[str, Array]] = [{} for _ in self.workers]
        for bucket in range(len(self.plan.buckets)):
            exchanges = [worker.begin(bucket, own) for worker, own in zip(self.workers, copies, strict=True)]
            run_lockstep(exchanges, order or range(self.world_size))
            for worker, exchange, mean in zip(self.workers, exchanges, means, strict=True):
                mean.update(worker.finish(bucket, exchange))
        for worker in self.workers:
            worker.end_step()
        return means

    def change_compression(self, compression: Any, residual: Residual = "keep") -> None:
        """Compress by something else from the next step on; see `Worker.replan` for what becomes of residuals."""
        compressor = resolve(compression)
        plans = [self._plan_for(worker.plan.parameters, compressor) for worker in self.workers]
        for worker, plan in zip(self.workers, plans, strict=True):
            worker.replan(plan, residual)
        self.compressor = compressor

    @property
    def plan(self) -> Plan:
        """The plan, equal for all workers; known after the first step."""
        if not self.workers:
            raise UsageError("Nothing is planned yet; call step(gradients) first.")
        return self.workers[0].plan

    @property
    def sent_bytes(self) -> int:
        """Bytes that one worker has sent so far."""
        return self.workers[0].meter.sent_bytes if self.workers else 0

    def similarity(self, ratio: int = 100) -> dict[str, Similarity]:
        """Return how alike the workers' residuals are, by parameter name; of each the d/ratio largest are compared."""
        exchanges = [similarities(worker, ratio) for worker in self.workers]
        run_lockstep(exchanges, range(self.world_size))
        return similarities_of(exchanges[0]) if exchanges else {}

    def state_dicts(self) -> list[dict[str, Any]]:
        """Return every worker's state."""
        return [worker.state_dict() for worker in self.workers]

    def load_state_dicts(self, saved: Sequence[Mapping[str, Any]], gradients: Sequence[Mapping[str, Array]]) -> None:
        """Take over states that `state_dicts` returned; `gradients` give names and shapes."""
        self._make_workers(gradients)
        for worker, state in zip(self.workers, saved, strict=True):
            worker.load_state_dict(state)

    def set_up(self, gradients: Sequence[Mapping[str, Array]]) -> None:
        """Plan for gradients of these names and shapes; done at the first step."""
        if not self.workers:
            self._make_workers(gradients)

    def _make_workers(self, gradients: Sequence[Mapping[str, Array]]) -> None:
        plans = [self._plan_for(specs_of(own), self.compressor) for own in gradients]
        if len({plan.digest for plan in plans}) != 1:
            raise RankDisagreementError("Workers were given gradients of different names, shapes or element types.")
        self.workers = [
            Worker(plan, rank, self.world_size, lambda name: self.learning_rate, self._parameter)
            for rank, plan in enumerate(plans)
        ]

    def _plan_for(self, parameters: Sequence[tuple[str, Spec]], compressor: Operator | Codec) -> Plan:
        return make_plan(
            compressor,
            parameters,
            self.world_size,
            allow_larger=self._allow_larger,
            bucket_bytes=self._bucket_bytes,
        )

    def _parameter(self, name: str) -> Array | None:
        return None if self.parameters is None else self.parameters[name]


def run_lockstep(exchanges: list[BucketExchange], order: Sequence[int]) -> None:
    """Answer the collectives of all workers' exchanges of a bucket, round by round, until they are done.

    Raises:
        RankDisagreementError: workers ask for different collectives.
    """
    while not all(exchange.done for exchange in exchanges):
        rounds = [exchange.pending for exchange in exchanges]
        asked = [[(f.label, ops_of(f.request.array).shape(f.request.array)) for f in pending] for pending in rounds]
        if any(a != asked[0] for a in asked):
            raise RankDisagreementError(f"Workers asked for different collectives in one round: {asked}.")
        results = [_collective([pending[i] for pending in rounds]) for i in range(len(rounds[0]))]
        for rank in order:
            exchanges[rank].answer([result[rank] for result in results])


def _collective(fused: list[Fused]) -> list[Array]:
    """Return what every rank gets back from one collective."""
    requests: list[Collective] = [f.request for f in fused]
    ops, kind, world = fused[0].ops, type(fused[0].request), len(fused)
    arrays = [request.array for request in requests]
    if kind in (Mean, Sum):
        total = ops.copy(arrays[0])
        for array in arrays[1:]:
            total = ops.add_(total, array)
        if kind is Mean:
            total = ops.scale_(total, 1.0 / world)
        return [ops.copy(total) for _ in range(world)]
    if kind is Max:
        largest = ops.copy(arrays[0])
        for array in arrays[1:]:
            largest = ops.maximum(largest, array)
        return [ops.copy(largest) for _ in range(world)]
    if kind is AllGather:
        return [ops.stack(arrays) for _ in range(world)]
    if kind is AllToAll:
        return [ops.stack([array[rank] for array in arrays]) for rank in range(world)]
    if kind is Swap:
        return [ops.copy(arrays[request.partner]) for request in requests if isinstance(request, Swap)]
    assert isinstance(requests[0], Broadcast)
    return [ops.copy(arrays[requests[0].root]) for _ in range(world)]
