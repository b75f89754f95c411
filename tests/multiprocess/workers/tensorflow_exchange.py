"""GradientExchange in a graph over Horovod: the simulator's means, state and bytes for the same tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final
from unittest import mock

import horovod.tensorflow as stock
import tensorflow as tf

from hvd_compress import Cast, ConfigurationError, Identity, PowerSGD, Simulator, UsageError
from hvd_compress.contract import walk
from hvd_compress.ops import in_numpy

from .families import BASIC, QUANTISED, SCALECOM, SIGNS, SKETCHED, SPARSE, SPECTRAL
from .harness import check
from .process_sets import SETS
from .tensorflow_common import (
    SHAPES,
    Tensors,
    as_float64,
    assert_close,
    assert_equal_on_ranks,
    counted_collectives,
    gradients,
    made_exchange,
    mean_of,
    raises,
    traced_once,
)

# Every phase of every case comes, most of them twice: warm-ups of two steps, bases learnt every three or four.
STEPS = 7
# The learning rate drops once, and for one step it is 0: what is not applied is built differently.
RATES = (0.125, 0.125, 0.125, 0.0, 0.125, 0.0125, 0.0125)
# Each case leaves the choice clear, so that rounding does not turn it.
SKETCHED_SHAPES = {"conv": (3, 3, 8, 12), "bias": (7,), "matrix": (34, 30), "small": (3, 2)}


@final
@dataclass(frozen=True)
class Case:
    """A compressor, and how near its means come to the simulator's.

    Args:
        compressor: an instance.
        tolerance: of means and state, relative to the largest number.
        dtype: of gradients.
        steep: few elements of the gradients are large.
    """

    compressor: Any
    tolerance: float
    dtype: str = "float32"
    steep: bool = False

    def gradients(self, step: int) -> list[dict[str, tf.Tensor]]:
        """Return the gradients of all ranks."""
        everyone = gradients(step, SKETCHED_SHAPES if self.steep else SHAPES, self.dtype)
        return [{name: x**5 for name, x in own.items()} for own in everyone] if self.steep else everyone


def _tolerance(name: str) -> float:
    """Return the tolerance of a basic case; 16-bit payloads may round the other way, one unit in the last place."""
    return next((allowed for kind, allowed in {"fp16": 2e-3, "bf16": 1e-2}.items() if kind in name), 3e-5)


CASES: dict[str, Case] = {
    **{name: Case(compressor, _tolerance(name)) for name, (compressor, _) in BASIC.items()},
    **{f"scalecom-{name}": Case(compressor, 1e-6) for name, compressor in SCALECOM.items()},
    # A sign turns where rounding turns it: wider numbers keep it.
    **{f"signs-{name}": Case(compressor, 1e-12, "float64") for name, compressor in SIGNS.items()},
    **{f"quantised-{name}": Case(compressor, 1e-6) for name, compressor in QUANTISED.items()},
    **{f"sparse-{name}": Case(compressor, 1e-6) for name, compressor in SPARSE.items()},
    **{f"sketched-{name}": Case(compressor, close, steep=True) for name, (compressor, close) in SKETCHED.items()},
    # Singular vectors of float32 turn by more than a rounding of the matrix.
    **{f"spectral-{name}": Case(compressor, 1e-4) for name, compressor in SPECTRAL.items()},
}


@check(cases=CASES)
def equals_the_simulator(name: str) -> None:
    """Means at every step and state at the end, by one trace that serves all steps."""
    case = CASES[name]
    exchange = made_exchange(case.compressor, case.gradients(0)[0])
    simulator = Simulator(case.compressor, stock.size(), allow_larger=True)
    step = traced_once(exchange)
    weights = case.gradients(99)[0]
    for number, rate in enumerate(RATES):
        everyone = case.gradients(number)
        found = step(everyone[stock.rank()], weights, tf.constant(rate, tf.float64))
        simulator.learning_rate, simulator.parameters = rate, weights
        expected = simulator.step([_reversed(own) for own in everyone])[stock.rank()]
        assert_close(found, expected, case.tolerance)
        weights = {key: x - tf.cast(rate, x.dtype) * expected[key] for key, x in weights.items()}
    assert exchange.plan.units == simulator.plan.units
    assert int(exchange.step) == STEPS
    assert_equal_on_ranks(found)
    assert_same_state(exchange, simulator, case.tolerance)


@check(cases=[name for name in CASES if name.startswith(("scalecom", "signs", "quantised", "sparse", "sketched"))])
def work_done_by_numpy_equals_the_simulator(name: str) -> None:
    """As for tensors that are large enough for it."""
    with mock.patch.object(in_numpy, "WORTH", 0):
        equals_the_simulator(name)


def assert_same_state(exchange: Any, simulator: Simulator, tolerance: float) -> None:
    """Check that the variables hold this rank's state in the simulator."""
    saved = simulator.workers[stock.rank()].state_dict()["units"]
    for unit in exchange.plan.units:
        held = exchange.state.read(unit)
        expected = dict(walk(saved[unit.name]["leaves"]))
        if len(unit.parameters) > 1:  # saved by parameter
            expected = {}
            for path, leaf in saved[unit.name]["leaves"].items():
                parts = leaf if isinstance(leaf, Mapping) else {unit.name: leaf}
                expected.update({f"{key}.{path}": part for key, part in parts.items()})
            held = {
                f"{key}.{path}": variable
                for key in {unit.name, *(key for key, _ in unit.parameters)}
                for path, variable in exchange.state.variables_by_name.get(key, {}).items()
            }
        else:
            held = dict(walk(held))
        assert held.keys() == expected.keys(), f"{unit.name}: {sorted(held)} is not {sorted(expected)}"
        for path, leaf in expected.items():
            actual, wanted = as_float64(held[path]), as_float64(leaf)
            assert actual.shape == wanted.shape, f"{unit.name}.{path}"
            # A residual is a difference of numbers of size 1: its error is relative to them.
            scale = max(1.0, float(abs(wanted).max(initial=0.0)))
            error = float(abs(actual - wanted).max(initial=0.0))
            assert error <= tolerance * scale, f"{unit.name}.{path}: off by {error:g}"


def _reversed(own: Tensors) -> dict[str, Any]:
    """Return gradients as the driver plans them: last variable first, as backward makes them."""
    return dict(reversed(list(own.items())))


# Of every family, and all kinds of phases.
COUNTED = (
    "powersgd",
    "powersgd-alternate",
    "powersgd-later",
    "bf16",
    "two-way",
    "scalecom-chunked",
    "scalecom-start-after",
    "signs-block-sgdm-decay",
    "quantised-shared-scale",
    "sparse-gtopk",
    "sparse-dgc-all-settings",
    "sketched-default",
    "spectral-gradiveq",
)


@check(cases=COUNTED)
def bytes_are_as_planned(name: str) -> None:
    """What is handed to Horovod at every step is what the plan says of that step."""
    case = CASES[name]
    exchange = made_exchange(case.compressor, case.gradients(0)[0])
    step, size = traced_once(exchange), stock.size()
    sent: dict[int, int] = {}
    with counted_collectives() as counts:
        for number in range(STEPS):
            before = counts["bytes"]
            everyone = case.gradients(number)
            found = step(everyone[stock.rank()], everyone[0], tf.constant(0.125, tf.float64))
            sent[number] = counts["bytes"] - before
    assert_equal_on_ranks(found)
    for number, handed in sent.items():
        traffic = [unit.operator.traffic(unit.spec, size, number) for unit in exchange.plan.units]
        planned = sum(payload.nbytes for rounds in traffic for payloads in rounds for payload in payloads)
        assert handed == (0 if size == 1 else planned), f"step {number}: {handed} bytes, {planned} are planned"


@check(cases=["powersgd", "powersgd-alternate", "bf16", "sparse-gtopk"])
def several_buckets_equal_the_simulator(name: str) -> None:
    case = CASES[name]
    exchange = made_exchange(case.compressor, gradients(0)[0], bucket_bytes=500)
    simulator = Simulator(case.compressor, stock.size(), bucket_bytes=500, allow_larger=True)
    step = traced_once(exchange)
    for number in range(3):
        everyone = gradients(number)
        own = everyone[stock.rank()]
        expected = simulator.step([_reversed(g) for g in everyone])[stock.rank()]
        assert_close(step(own, own, tf.constant(0.125, tf.float64)), expected, case.tolerance)
    assert exchange.plan.buckets == simulator.plan.buckets
    assert len(exchange.plan.buckets) >= 4


# One rounding for every rank's gradient and one for the mean, to the coarser of gradient and payload.
PRECISION = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
MEANS: dict[str, tuple[Any, str]] = {
    "identity": (Identity(), "float64"),
    "full-rank": (PowerSGD(rank=10**6, min_saving=0), "float64"),
    "fp16": (Cast("float16"), "float16"),
    "bf16": (Cast("bfloat16"), "bfloat16"),
}


@check(cases=[f"{compressor}-of-{dtype}" for compressor in MEANS for dtype in PRECISION])
def means_are_right(case: str) -> None:
    compressor, dtype = case.split("-of-")
    exchange = made_exchange(MEANS[compressor][0], gradients(0, dtype=dtype)[0])
    step = traced_once(exchange)
    for number in range(2):
        everyone = gradients(number, dtype=dtype)
        own = everyone[stock.rank()]
        found = step(own, own, tf.constant(0.125, tf.float64))
        assert all(x.dtype.name == dtype for x in found.values())
        assert_close(found, mean_of(everyone), max(PRECISION[dtype], PRECISION[MEANS[compressor][1]]))
    assert_equal_on_ranks(found)


@check(cases=["identity", "powersgd", "bf16"])
def op_sum_and_predivide(name: str) -> None:
    """A sum is the mean times a number; a factor of a power of two is taken out again exactly."""
    compressor = CASES[name].compressor
    own = gradients(0)[stock.rank()]
    results = {}
    for kind, changes in {"mean": {}, "sum": {"average": False}, "divided": {"gradient_predivide_factor": 4.0}}.items():
        results[kind] = made_exchange(compressor, own, **changes)(own, own, None)
    assert_close(results["sum"], {key: x * stock.size() for key, x in results["mean"].items()}, 1e-6)
    assert_close(results["divided"], results["mean"], 1e-5)


@check(min_ranks=3, cases=["identity", "powersgd", "bf16", "sparse-gtopk"])
def process_set_of_some_ranks(name: str) -> None:
    case, members = CASES[name], SETS["ends"].ranks
    simulator = Simulator(case.compressor, len(members), allow_larger=True)
    if stock.rank() in members:
        exchange = made_exchange(case.compressor, gradients(0)[0], SETS["ends"])
        step = traced_once(exchange)
        for number in range(3):
            everyone = gradients(number)
            own = everyone[stock.rank()]
            expected = simulator.step([_reversed(everyone[rank]) for rank in members])
            found = step(own, own, tf.constant(0.125, tf.float64))
            assert_close(found, expected[members.index(stock.rank())], case.tolerance)


@check(min_ranks=2)
def process_set_of_one_rank() -> None:
    """It exchanges nothing with the others, who do not wait for it."""
    if stock.rank() == stock.size() - 1:
        exchange = made_exchange(PowerSGD(rank=2), gradients(0)[0], SETS["last"])
        simulator = Simulator(PowerSGD(rank=2), 1, allow_larger=True)
        for number in range(3):
            own = gradients(number)[stock.rank()]
            assert_close(exchange(own, own, None), simulator.step([_reversed(own)])[0], 3e-5)


@check()
def misuse_is_refused() -> None:
    own = gradients(0)[stock.rank()]
    exchange = made_exchange(CASES["signs-sgdm"].compressor, own)
    with raises(ConfigurationError, "learning rate", "learning_rate=..."):
        exchange(own, own, None)
    with raises(UsageError, "['bias']"):
        exchange({name: x for name, x in own.items() if name != "bias"}, own, 0.1)

    @tf.function(autograph=False, jit_compile=True)
    def compiled(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return exchange(own, own, 0.1)

    with raises(ConfigurationError, "jit_compile=False"):
        compiled(own)
