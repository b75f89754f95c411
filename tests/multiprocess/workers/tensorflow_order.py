"""Many collectives in one graph, ready in another order on every rank: no deadlock, and no other result.

Gradients pass through delays inside the graph, which hold one of its two threads each; methods with one to many rounds
are mixed, so that rounds of different variables overtake one another on one rank and not on the other.
"""

from __future__ import annotations

import time
from typing import Any

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf

from hvd_compress import ByName, Cast, GTopK, Identity, PowerSGD, ScaleCom, SharedScale, TwoWay
from hvd_compress.tensorflow.gradient_exchange import GradientExchange

from .harness import check
from .tensorflow_common import assert_close, assert_equal_on_ranks, gradients, made_exchange, mean_of

VARIABLES, STEPS = 60, 60
SHAPES = {f"layer{i:02d}": (6, 5) if i % 2 else (9,) for i in range(VARIABLES)}
# Rounds: 2, 6, logarithm of the ranks, 2 with positions, 2 with maxima, 2, 1.
MIXED = ByName(
    {
        "layer0[0-4]": PowerSGD(rank=1, min_saving=0.0),
        "layer1[0-4]": PowerSGD(rank=1, power_iterations=3, min_saving=0.0),
        "layer2[0-4]": GTopK(0.2, min_size=1),
        "layer3[0-4]": ScaleCom(4, min_size=1),
        "layer4[0-4]": SharedScale(levels=7),
        "layer5[0-4]": TwoWay(Cast("bfloat16")),
    },
    Identity(),
)
EXACT = tuple(name for name in SHAPES if name[-1] in "56789")
# Two variables or so: about thirty buckets, which advance on their own.
SMALL = {"bucket_bytes": 160.0}
SECONDS = 300.0


def _delays(gradients: dict[str, tf.Tensor], seed: int) -> dict[str, tf.Tensor]:
    """Return the gradients, some of them later than others: other ones on every rank and at every step."""
    draw = np.random.default_rng([seed, stock.rank()])

    def late(x: np.ndarray) -> np.ndarray:
        if draw.random() < 0.1:
            time.sleep(0.001 * draw.integers(1, 6))
        return x

    return {
        name: tf.ensure_shape(tf.numpy_function(late, [x], x.dtype), x.shape) if draw.random() < 0.5 else x
        for name, x in gradients.items()
    }


def _exchange(compressor: Any) -> GradientExchange:
    exchange = made_exchange(compressor, gradients(0, SHAPES)[0], **SMALL)
    assert len(exchange.plan.buckets) >= VARIABLES // 3
    return exchange


def _assert_right(found: Any, step: int) -> None:
    expected = mean_of(gradients(step, SHAPES))
    assert_close({name: found[name] for name in EXACT}, {name: expected[name] for name in EXACT})
    assert all(bool(tf.math.reduce_all(tf.math.is_finite(x))) for x in found.values())
    assert all(bool(tf.math.reduce_any(x != 0.0)) for name, x in found.items() if name in EXACT)


@check(seconds=SECONDS)
def steps_of_a_function() -> None:
    exchange = _exchange(MIXED)

    @tf.function(autograph=False)
    def step(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return exchange(_delays(own, 1), own, None)

    draw = np.random.default_rng([2, stock.rank()])
    for number in range(STEPS):
        time.sleep(0.003 * draw.random())
        found = step(gradients(number, SHAPES)[stock.rank()])
        if number % 20 == 19:
            _assert_right(found, number)
            assert_equal_on_ranks(found)
    assert int(exchange.step) == STEPS


@check(seconds=SECONDS, cases=["mixed", "stateless"])
def steps_of_a_while_loop(kind: str) -> None:
    """Iterations of a loop may overlap, but not two steps: they use the same names."""
    exchange = _exchange(MIXED if kind == "mixed" else Identity())
    all_gradients = [gradients(number, SHAPES)[stock.rank()] for number in range(STEPS)]
    stacked = {name: tf.stack([own[name] for own in all_gradients]) for name in SHAPES}

    @tf.function(autograph=False)
    def run(stacked: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        def body(number: tf.Tensor, _: Any, sums: Any) -> Any:
            own = {name: x[number] for name, x in stacked.items()}
            means = exchange(_delays(own, 3), own, None)
            return number + 1, means, {name: sums[name] + mean for name, mean in means.items()}

        zeros = {name: tf.zeros(shape) for name, shape in SHAPES.items()}
        _, last, sums = tf.while_loop(lambda number, *_: number < STEPS, body, (tf.constant(0), zeros, zeros))
        return {**last, **{f"sum of {name}": x for name, x in sums.items()}}

    found = run(stacked)
    _assert_right({name: found[name] for name in SHAPES}, STEPS - 1)
    assert int(exchange.step) == STEPS
    assert_equal_on_ranks(found)
    expected = mean_of([{name: np.sum(x, axis=0) for name, x in own.items()} for own in _all_stacked()])
    # The sum of sixty numbers of size 1 is of size 8, each of them rounded.
    assert_close({name: found[f"sum of {name}"] for name in EXACT}, {name: expected[name] for name in EXACT}, 1e-4)


def _all_stacked() -> list[dict[str, np.ndarray]]:
    steps = [gradients(number, SHAPES) for number in range(STEPS)]
    return [{name: np.stack([s[rank][name].numpy() for s in steps]) for name in SHAPES} for rank in range(stock.size())]


@check(seconds=SECONDS)
def two_exchanges_in_one_step() -> None:
    """As for a generator and a discriminator: names of their own keep them apart, whichever comes first."""
    first, second = _exchange(MIXED), _exchange(PowerSGD(rank=1, min_saving=0.0))

    @tf.function(autograph=False)
    def step(own: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        return first(_delays(own, 4), own, None), second(_delays(own, 5), own, None)

    for number in range(STEPS // 2):
        found, other = step(gradients(number, SHAPES)[stock.rank()])
    _assert_right(found, STEPS // 2 - 1)
    assert_equal_on_ranks(found)
    assert_equal_on_ranks(other)


@check(min_ranks=2, cases=["one", "all"])
def a_mean_that_one_rank_does_not_use_is_exchanged(unused: str) -> None:
    """The optimiser drops operations whose result nothing needs, on that rank alone."""
    exchange = made_exchange(Identity(), gradients(0, SHAPES)[0], **SMALL)

    @tf.function(autograph=False)
    def step(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        means = exchange(own, own, None)
        if stock.rank() == 0:
            return {"layer07": means["layer07"]} if unused == "one" else {}
        return means

    for number in range(5):
        found = step(gradients(number, SHAPES)[stock.rank()])
        expected = mean_of(gradients(number, SHAPES))
        assert_close(found, {name: expected[name] for name in found})
    assert int(exchange.step) == 5


@check(min_ranks=2)
def a_gradient_that_is_a_constant_on_one_rank_is_exchanged_at_every_step() -> None:
    """The optimiser runs what depends on constants only while it prepares the graph, on that rank alone."""
    exchange = made_exchange(Identity(), gradients(0, SHAPES)[0], **SMALL)
    constant = stock.rank() == stock.size() - 1

    @tf.function(autograph=False)
    def step(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return exchange({name: tf.zeros(x.shape) for name, x in own.items()} if constant else own, own, None)

    for number in range(5):
        everyone = gradients(number, SHAPES)
        found = step(everyone[stock.rank()])
        zeros = {name: tf.zeros_like(x) for name, x in everyone[-1].items()}
        assert_close(found, mean_of([*everyone[:-1], zeros]))


@check(min_ranks=2)
def equal_gradients_of_one_rank_are_exchanged_one_by_one() -> None:
    """The optimiser makes one operation of two that have the same inputs, on that rank alone."""
    exchange = made_exchange(Identity(), gradients(0, SHAPES)[0], bucket_bytes=1.0)
    assert len(exchange.plan.buckets) == VARIABLES

    def shared(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: own["layer01" if int(name[-2:]) % 2 else "layer00"] for name in own}

    @tf.function(autograph=False)
    def step(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return exchange(shared(own) if stock.rank() == 0 else own, own, None)

    for number in range(5):
        everyone = gradients(number, SHAPES)
        found = step(everyone[stock.rank()])
        assert_close(found, mean_of([shared(everyone[0]), *everyone[1:]]))
