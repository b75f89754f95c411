"""GradientExchange: from gradient hooks to mean gradients, for one optimizer.

A hook on every parameter counts backward passes. When all gradients of a bucket are there its first round starts, and
buckets whose rounds have arrived go on; nothing waits in a hook. `synchronize` starts what no hook did, then waits
for the lowest round under way, until all are done. Names of collectives are made of plan, bucket and round, so the
order in which hooks fire on a rank makes no difference.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, final

import horovod.torch as stock
import torch

from ..codecs import Identity
from ..contract import Codec, Operator
from ..drivers import LoopbackTransport, RoundTrip, Transport, complete
from ..drivers.settings import ExchangeSettings, check_passes, check_scales
from ..errors import UsageError
from ..exchange import Meter, Plan, Residual, Worker, check_agreement, check_change, make_plan
from ..monitors import Similarity, similarities, similarities_of
from ..registry import resolve
from . import sparse
from .parameters import Named, specs_in_gradient_order
from .replicas import check_replicas
from .settings import check_optimizer
from .transport import HorovodTransport

# Exchanges made so far in each process set; its ranks make them in the same order, so the number names them.
_made: Counter[int] = Counter()


def _register(parameter: torch.Tensor, hook: Callable[[torch.Tensor], None]) -> Any:
    return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]


def _compressor_of(compression: Any) -> Operator | Codec:
    return Identity() if compression is stock.Compression.none else resolve(compression)


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether both are the same numbers in memory."""
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.stride() == b.stride()


@final
class GradientExchange:
    """Exchanges the gradients of one optimizer's parameters among the ranks of a process set.

    Args:
        optimizer: the user's; its learning rates are read at every step.
        named: (name, parameter) of what is exchanged.
        compressor: an instance.
        settings: equal on all ranks.
        process_set: Horovod's; this rank is in it.
        passes: backward passes that add up to one gradient.
        overlap: start exchanges from gradient hooks, during backward.
        groups: names that travel in one bucket.

    Raises:
        RankDisagreementError: ranks differ in names, shapes, compressor or settings.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named: Sequence[Named],
        compressor: Operator | Codec,
        settings: ExchangeSettings,
        process_set: Any,
        passes: int,
        overlap: bool,
        groups: Sequence[Sequence[str]],
    ) -> None:
        self._optimizer = optimizer
        self._named = list(named)
        self._parameter = dict(named)
        self._name = {p: name for name, p in named}
        groups_of = {p: i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        self._group_of = {name: groups_of[p] for name, p in named}
        self._compressor = compressor
        self._settings = settings
        self._process_set = process_set
        self._overlap = overlap
        self._groups = groups
        self._gatherer = HorovodTransport(process_set)
        self._alone = process_set.size() == 1
        self._transport: Transport = LoopbackTransport() if self._alone else self._gatherer
        self.passes = check_passes(passes)
        self._sparse: tuple[str, ...] = ()
        self._made_dense: frozenset[str] = frozenset()
        self._sparse_known = False
        self._asked: Any = compressor
        self._resolved = compressor
        self._changes = 0
        self._plan_for(())
        self._prefix = self._check_plan()
        self._passes_done: Counter[str] = Counter()
        self._steps_checked = 0
        self._quiet = False
        self._lock = threading.RLock()  # autograd runs hooks of different devices in different threads
        self._hooks = self._registered_hooks()

    def _registered_hooks(self) -> list[Any]:
        """Hook every parameter for as long as this exchange lives; the model must not keep it alive."""
        own = weakref.ref(self)

        def on_gradient(parameter: torch.Tensor) -> None:
            exchange = own()
            if exchange is not None:
                with exchange._lock, torch.no_grad():
                    exchange._on_gradient(parameter)

        hooks = [_register(p, on_gradient) for _, p in self._named]
        for hook in hooks:
            weakref.finalize(self, hook.remove)
        return hooks

    def release(self, parameters: Set[torch.nn.Parameter]) -> None:
        """Leave gradient hooks to another optimizer if it has any of these parameters; step() still exchanges.

        Raises:
            UsageError: gradients are on their way.
        """
        if not self._hooks or parameters.isdisjoint(self._name):
            return
        if self._trips:
            raise UsageError(
                "Another optimizer of the same parameters has gradients on their way; call its step() or synchronize() "
                "before hvd.DistributedOptimizer()."
            )
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._forget_passes()

    # --- planning ---

    def _plan_for(self, sparse_names: tuple[str, ...]) -> None:
        """Plan for all parameters but those whose gradients are sparse and stay so."""
        self._sparse = sparse_names
        plan = self._make_plan(self._compressor)
        self._worker = Worker(
            plan, self._process_set.rank(), self._process_set.size(), self._learning_rate, self._parameter_of
        )
        self._follow_plan()

    def _make_plan(self, compressor: Operator | Codec) -> Plan:
        return make_plan(
            compressor,
            specs_in_gradient_order([(name, p) for name, p in self._named if name not in self._sparse]),
            self._process_set.size(),
            allow_larger=self._settings.allow_larger,
            bucket_bytes=self._settings.bucket_bytes,
            groups=self._groups,
            kinds={name: (group, self._parameter[name].device) for name, group in self._group_of.items()},
            settings=self._settings.as_text(),
        )

    def _follow_plan(self) -> None:
        """Make what hooks need to know of the plan."""
        plan = self.plan
        self._bucket_of = {
            name: number
            for number, bucket in enumerate(plan.buckets)
            for i in bucket
            for name, _ in plan.units[i].parameters
        }
        self._missing = Counter(self._bucket_of.values())
        self._trips: dict[int, RoundTrip] = {}
        self._gathers: dict[str, Callable[[], torch.Tensor]] = {}

    def _parameter_of(self, name: str) -> torch.Tensor:
        return self._parameter[name].detach()

    def _learning_rate(self, name: str) -> float | None:
        # Groups are looked up anew: loading an optimizer's state replaces them.
        rate = self._optimizer.param_groups[self._group_of[name]].get("lr")
        return None if rate is None else float(rate)

    def _check_plan(self) -> str:
        """Compare plans across ranks; return the prefix of this exchange's collectives."""
        self.number = _made[self._process_set.process_set_id]
        _made[self._process_set.process_set_id] += 1
        prefix = f"hvd_compress.{self.number}"
        check_agreement(self.plan, lambda item: self._gather(item, f"{prefix}.plan"))
        return prefix

    def _gather(self, item: Any, name: str) -> Sequence[Any]:
        return [item] if self._alone else self._gatherer.gather_objects(item, name)

    def _agree_on_sparse(self) -> None:
        """Find out, once and on all ranks, which gradients are sparse; a rank without a gradient cannot know."""
        own = [name for name, p in self._named if p.grad is not None and p.grad.is_sparse]
        found = {name for names in self._gather(own, f"{self._prefix}.sparse") for name in names}
        names = tuple(name for name, _ in self._named if name in found)
        if self._settings.sparse_as_dense:
            self._made_dense = frozenset(names)
        elif names != self._sparse:
            self._plan_for(names)
        self._sparse_known = True

    # --- changing the compressor ---

    def _wanted(self) -> Operator | Codec:
        """Return the compressor that `optimizer.compression` asks for; another object once it was assigned anew."""
        asked = getattr(self._optimizer, "compression", self._compressor)
        if asked is not self._asked:
            self._asked, self._resolved = asked, _compressor_of(asked)
        return self._resolved

    def change_compression(self, compression: Any, residual: Residual = "keep") -> None:
        """Compress by something else from the next exchange on; all ranks of the process set call it.

        To assign `optimizer.compression` on all ranks does the same, with "keep", when the next gradients are there.

        Args:
            compression: an instance, class, factory or name.
            residual: what becomes of what was not sent yet: "keep", "flush" (sent dense at once) or "drop".

        Raises:
            ConfigurationError: the new compressor, or `residual`, cannot be honoured; nothing is changed.
            RankDisagreementError: ranks differ in the new compressor or in `residual`; nothing is changed.
            UsageError: gradients are on their way.
        """
        if self._trips:
            raise UsageError("The compressor cannot be changed between backward() and step(); change it after step().")
        wanted = _compressor_of(compression)
        check_optimizer(self._optimizer, wanted)
        check_scales(wanted, self._settings)
        plan = self._make_plan(wanted)
        self._changes += 1
        check_change(plan, residual, lambda item: self._gather(item, f"{self._prefix}.change{self._changes}"))
        # Ranks compare also what is equal here: another rank may have been given something else.
        if wanted != self._compressor or residual != "keep":
            self._worker.replan(plan, residual)
        self._compressor = self._resolved = self._asked = wanted
        self._optimizer.compression = wanted  # type: ignore[attr-defined]
        self._follow_plan()

    # --- during backward ---

    def _on_gradient(self, parameter: torch.Tensor) -> None:
        name = self._name[parameter]  # type: ignore[index]
        self._passes_done[name] += 1
        if self._passes_done[name] > self.passes:
            raise UsageError(
                f"Parameter {name!r} had {self._passes_done[name]} backward passes before step(); raise "
                f"backward_passes_per_step (now {self.passes}), or call step() or synchronize() in between."
            )
        if self._passes_done[name] < self.passes or name not in self._bucket_of:
            return
        bucket = self._bucket_of[name]
        self._missing[bucket] -= 1
        if not (self._overlap and self._sparse_known) or self._wanted() is not self._compressor:
            return
        if self._missing[bucket] == 0:
            self._start(bucket)
        for trip in self._trips.values():
            trip.advance_if_arrived()

    def _start(self, bucket: int) -> None:
        units = (self.plan.units[i] for i in self.plan.buckets[bucket])
        gradients = {name: self._gradient(name) for unit in units for name, _ in unit.parameters}
        exchange = self._worker.begin(bucket, gradients)
        name = f"{self._prefix}.bucket{bucket}"
        self._trips[bucket] = RoundTrip(exchange, self._transport, name, self.meter)

    def _gradient(self, name: str) -> torch.Tensor:
        """Return this rank's gradient as it enters the exchange."""
        parameter = self._parameter[name]
        if parameter.grad is None:
            return torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        gradient = parameter.grad.detach()
        if gradient.is_sparse:
            if not self._settings.sparse_as_dense:
                raise UsageError(
                    f"The gradient of {name!r} became sparse after the first step; make it sparse from the start, or "
                    "pass sparse_as_dense=True."
                )
            gradient = gradient.to_dense()
        factor = self._settings.gradient_predivide_factor
        return gradient if factor == 1.0 else gradient / factor

    # --- after backward ---

    @property
    def in_flight(self) -> bool:
        """Whether gradients are on their way, or counted towards the next exchange."""
        return bool(self._trips or self._passes_done)

    @torch.no_grad()
    def synchronize(self) -> None:
        """Exchange what is not under way yet, wait for everything, and put mean gradients in `p.grad`."""
        self._check_nothing_is_new()
        wanted = self._wanted()
        # What is on its way already travels by an equal compressor; ranks compare before the next exchange.
        if wanted is not self._compressor and not (self._trips and wanted == self._compressor):
            self.change_compression(wanted)
        if not self._sparse_known:
            self._agree_on_sparse()
        for name in () if self._alone else self._sparse:
            p = self._parameter[name]
            self._gathers[name] = sparse.start_gather(
                p.grad, p, f"{self._prefix}.sparse.{name}", self._settings.average, self._process_set
            )
        for bucket in range(len(self.plan.buckets)):
            if bucket not in self._trips:
                self._start(bucket)
        trips = [self._trips[bucket] for bucket in range(len(self.plan.buckets))]
        complete(trips)
        for bucket, trip in enumerate(trips):
            self._put_gradients(self._worker.finish(bucket, trip.exchange))
        for name, wait in self._gathers.items():
            self._parameter[name].grad = wait()
        self._worker.end_step()
        self._forget_passes()

    def _check_nothing_is_new(self) -> None:
        """Raise rather than let ranks drift apart by a gradient that nobody exchanges."""
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and p not in self._name:
                    raise UsageError(
                        f"A parameter of shape {list(p.shape)} was added to the optimizer, or made trainable, after "
                        "DistributedOptimizer was called, and is not exchanged; add and unfreeze parameters before."
                    )

    def _put_gradients(self, means: Mapping[str, torch.Tensor]) -> None:
        """Put mean gradients, by parameter name, into `p.grad`."""
        began = time.perf_counter()
        factor = self._settings.gradient_predivide_factor
        if not self._settings.average:
            factor = float(self._process_set.size())
        dense: list[torch.Tensor] = []
        moved: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name, mean in means.items():
            parameter = self._parameter[name]
            given = parameter.grad
            if given.is_sparse if given is not None else name in self._made_dense:
                whole = mean * factor if factor != 1.0 else mean
                parameter.grad = whole.to_sparse(1 if given is None else given.sparse_dim())
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            dense.append(parameter.grad.detach())
            if not _same_memory(dense[-1], mean):
                moved.append((dense[-1], mean))
        if moved:
            torch._foreach_copy_([gradient for gradient, _ in moved], [mean for _, mean in moved])
        if factor != 1.0 and dense:
            torch._foreach_mul_(dense, factor)
        self.meter.compress_seconds += time.perf_counter() - began

    def _forget_passes(self) -> None:
        self._trips.clear()
        self._gathers.clear()
        self._passes_done.clear()
        self._missing = Counter(self._bucket_of.values())

    def after_step(self) -> None:
        """Compare replicas across ranks after the first step, and at every so many if asked."""
        every = self._settings.check_replicas_every
        done = self.meter.steps
        due = self._steps_checked == 0 or (every > 0 and done % every == 0)
        if done > self._steps_checked and due:
            self._steps_checked = done
            check_replicas(self._named, lambda item: self._gather(item, f"{self._prefix}.replicas"), done)

    # --- what a user may ask ---

    @property
    def plan(self) -> Plan:
        """Units, buckets and how they travel; equal on all ranks."""
        return self._worker.plan

    @property
    def step(self) -> int:
        """Steps done, those of the run that state was loaded from included."""
        return self._worker.step

    @property
    def meter(self) -> Meter:
        """Bytes, collectives and seconds so far."""
        return self._worker.meter

    @torch.no_grad()
    def similarity(self, ratio: int = 100) -> dict[str, Similarity]:
        """Return how alike the ranks' residuals are, by parameter name; all ranks of the process set call it.

        Args:
            ratio: of each residual the d/ratio largest elements are compared.

        Raises:
            UsageError: gradients are on their way, and the residuals with them.
        """
        if self._trips:
            raise UsageError("Residuals cannot be compared between backward() and step(); compare them after step().")
        exchange = similarities(self._worker, ratio)
        complete([RoundTrip(exchange, self._transport, f"{self._prefix}.similarity", Meter())])
        return similarities_of(exchange)

    def state_dict(self) -> dict[str, Any]:
        """Return this rank's compression state (residuals, factors); every rank saves its own.

        Raises:
            UsageError: gradients are on their way, and the state with them.
        """
        if self._trips:
            raise UsageError("Compression state cannot be saved between backward() and step(); save it after step().")
        names = {"gathered": list(self._sparse), "made_dense": sorted(self._made_dense)}
        return {"sparse": names, **self._worker.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a state that `state_dict` returned on this rank.

        Raises:
            ConfigurationError: it is of another compressor, world size, rank or model.
        """
        if self.in_flight:
            raise UsageError("Compression state cannot be loaded between backward() and step(); load it before.")
        gathered = tuple(saved["sparse"]["gathered"])
        if gathered != self._sparse:
            self._plan_for(gathered)
        self._worker.load_state_dict(saved)
        self._made_dense = frozenset(saved["sparse"]["made_dense"])
        self._sparse_known = self._worker.step > 0

    def follow(self, rank: int) -> None:
        """Take over the step count and the replicated state of one rank: others have joined earlier than it."""
        self._worker.adopt(*stock.broadcast_object(self._worker.replicated(), rank, name=f"{self._prefix}.follow"))

    @property
    def checks_replicas(self) -> bool:
        """Whether replicas are compared again after the first step."""
        return self._settings.check_replicas_every > 0

    @property
    def quiet(self) -> bool:
        """Whether steps are not exchanged just now."""
        return self._quiet

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the optimizer step without any exchange or check, as to initialise its state."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
