"""When gradients are exchanged: before each step, unless the user did so or asks not to."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

from ..contract import Codec, Operator
from ..drivers.settings import check_passes
from ..errors import UsageError
from .gradient_exchange import GradientExchange


def attach(optimizer: Any, exchange: GradientExchange | None, compressor: Operator | Codec) -> None:
    """Give the optimizer Horovod's methods, and an exchange before each step.

    The step is wrapped on the object, not hooked: torch runs hooks once for every class of the optimizer whose step
    calls that of the class above.

    Args:
        optimizer: the user's.
        exchange: None where this rank is not in the process set.
        compressor: what the user asked for, to look at.
    """
    stepping = _Stepping(exchange)
    plain_step, plain_zero_grad = optimizer.step, optimizer.zero_grad

    # What a learning-rate scheduler wrote on the step it has counted is carried over.
    @functools.wraps(plain_step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        del self
        args, kwargs = stepping.before_step(args, kwargs)
        result = plain_step(*args, **kwargs)
        stepping.after_step()
        return result

    def zero_grad(set_to_none: bool = True) -> None:
        """Reset gradients, unless they are on their way."""
        if exchange is not None and exchange.in_flight:
            raise UsageError(
                "zero_grad() was called after backward() but before step() or synchronize(), while gradients are on "
                "their way; call optimizer.synchronize() first to drop them."
            )
        plain_zero_grad(set_to_none=set_to_none)

    def set_backward_passes_per_step(passes: int) -> None:
        """Accumulate gradients over so many backward passes from the next step on."""
        if exchange is not None:
            exchange.passes = check_passes(passes)

    optimizer.compression = compressor
    optimizer.exchange = exchange
    optimizer.synchronize = stepping.synchronize
    optimizer.skip_synchronize = stepping.skip_synchronize
    optimizer.set_backward_passes_per_step = set_backward_passes_per_step
    optimizer.zero_grad = zero_grad
    optimizer.step = types.MethodType(step, optimizer)


@final
class _Stepping:
    """What happens before and after a step."""

    def __init__(self, exchange: GradientExchange | None) -> None:
        self._exchange = exchange
        self._synchronized = False
        self._skip = False

    def synchronize(self) -> None:
        """Finish the exchange of gradients; to be followed by step() under `skip_synchronize()`."""
        if self._exchange is not None:
            self._exchange.synchronize()
        self._synchronized = True

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """Let step() use the gradients as they are, after `synchronize()`."""
        self._skip = True
        try:
            yield
        finally:
            self._skip = False

    def before_step(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Exchange gradients, or have the closure do so; return the arguments for the plain step."""
        if self._exchange is None or self._exchange.quiet:
            return args, kwargs
        if self._skip:
            self._synchronized = False
            return args, kwargs
        if self._synchronized:
            warnings.warn(
                "optimizer.step() after optimizer.synchronize() exchanges gradients a second time; call step() under "
                "optimizer.skip_synchronize().",
                stacklevel=3,
            )
        self._synchronized = False
        closure = args[0] if args else kwargs.get("closure")
        if closure is None:
            self._exchange.synchronize()
            return args, kwargs
        synchronized = self._synchronized_closure(closure)
        return ((synchronized, *args[1:]), kwargs) if args else (args, {**kwargs, "closure": synchronized})

    def after_step(self) -> None:
        """Compare replicas where that is due."""
        if self._exchange is not None and not self._exchange.quiet:
            self._exchange.after_step()

    def _synchronized_closure(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a closure that exchanges the gradients which the user's closure computes."""

        def synchronized() -> Any:
            loss = closure()
            assert self._exchange is not None
            self._exchange.synchronize()
            return loss

        return synchronized
