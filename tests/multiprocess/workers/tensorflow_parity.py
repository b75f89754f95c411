"""The same model, data and compressor in torch and in TensorFlow: the same weights after every step.

"natural": each framework keeps kernels in its own layout, OIHW and (out, in) or HWIO and (in, out). PowerSGD's matrix
is the transposed one, its columns in another order, and so its random start is another: it gives the same at full rank;
and the best approximation of a low rank, which has no start, always.
"shared": TensorFlow keeps torch's layouts too. Methods that choose among, or pack, the elements of a flat gradient see
them in the same order, so they give the same for every kernel.
"matrices": both keep kernels as (outputs, inputs). PowerSGD gives the same from its first step on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import horovod.tensorflow as stock
import numpy as np
import tensorflow as tf
from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
from horovod.runner.http.http_server import RendezvousServer

from hvd_compress import (
    DGC,
    QSGD,
    BestLowRank,
    BlockSign,
    DistEFBlockSGDM,
    DistEFSGD,
    DistEFSGDM,
    ErrorFeedback,
    Identity,
    PowerSGD,
    ScaleCom,
    SketchedSGD,
    TwoWay,
)

from .harness import check
from .process_sets import SETS
from .tensorflow_common import as_float64, assert_close, assert_equal_on_ranks, gathered, made_exchange

# In torch's layouts.
SHAPES = {"first": (6, 1, 3, 3), "second": (12, 6, 3, 3), "last": (10, 12), "bias": (10,)}
# From the layouts of torch to those of TensorFlow.
TRANSPOSED = {"first": (2, 3, 1, 0), "second": (2, 3, 1, 0), "last": (1, 0), "bias": (0,)}
# The rate drops on the way, which methods that follow it must see.
RATES = (0.2, 0.2, 0.2, 0.05, 0.05, 0.05)
CLASSES, SIZE = 10, 8
# float64 gradients differ in their last digits; what is sent as float32 may round the other way.
TOLERANCE = 1e-5


@final
@dataclass(frozen=True)
class Case:
    """A compressor, on a model of some kernels.

    Args:
        compressor: an instance.
        layouts: what kernels are kept in.
        tolerance: of every step's update, relative to the largest number.
    """

    compressor: Any
    layouts: Literal["natural", "shared", "matrices"] = "shared"
    tolerance: float = TOLERANCE


CASES: dict[str, Case] = {
    "identity": Case(Identity(), "natural"),
    "powersgd": Case(PowerSGD(rank=2, min_saving=0.0), "matrices"),
    "powersgd-rank-1-later": Case(PowerSGD(rank=1, start_after=2, min_saving=0.0), "matrices"),
    "best-low-rank": Case(ErrorFeedback(BestLowRank(rank=2)), "natural"),
    "powersgd-full-rank": Case(PowerSGD(rank=100, min_saving=0.0), "natural"),
    "scalecom": Case(ScaleCom(5, min_size=8)),
    "scalecom-low-pass": Case(ScaleCom(5, beta=0.3, selection="exact", min_size=8)),
    "sketched-sgd": Case(SketchedSGD(min_size=8, k=30, columns=300)),
    "dist-ef-sgd": Case(DistEFSGD(weight_decay=0.01)),
    "dist-ef-sgdm": Case(DistEFSGDM()),
    "dist-ef-block-sgdm": Case(DistEFBlockSGDM(BlockSign(block=256), weight_decay=0.01)),
    "dgc": Case(DGC(0.1, momentum=0.7, min_size=8)),
    "qsgd": Case(ErrorFeedback(TwoWay(QSGD(bucket=50)))),
}


@check(cases=CASES, min_ranks=2)
def torch_and_tensorflow_train_alike(name: str) -> None:
    case = CASES[name]
    weights = _weights()
    ours, theirs = _TensorFlowModel(case, weights), _TorchModel(case, weights)
    for step, rate in enumerate(RATES):
        images, labels = _batch(step)
        moved, expected = (_moved(model, images, labels, rate) for model in (ours, theirs))
        assert_close(moved, expected, case.tolerance)
        assert any(np.any(x != 0.0) for x in moved.values())
    assert_close(ours.weights(), theirs.weights(), case.tolerance)
    assert_equal_on_ranks(ours.weights())
    assert ours.units() == theirs.units()
    assert name == "identity" or any(not unit.endswith("Identity()") for unit in ours.units())


def _moved(
    model: _TensorFlowModel | _TorchModel, images: np.ndarray, labels: np.ndarray, rate: float
) -> dict[str, np.ndarray]:
    """Take a step; return how far every weight went: nowhere, exactly, where nothing was sent."""
    before = model.weights()
    model.step(images, labels, rate)
    return {key: x - before[key] for key, x in model.weights().items()}


def _weights() -> dict[str, np.ndarray]:
    """Return weights in torch's layouts, the same on all ranks."""
    draw = np.random.default_rng(41)
    return {name: draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) for name, shape in SHAPES.items()}


def _kept(weights: Mapping[str, np.ndarray], layouts: str) -> dict[str, np.ndarray]:
    """Return weights as they are kept by both frameworks, or by torch."""
    return {name: x.reshape(len(x), -1) if layouts == "matrices" and x.ndim > 1 else x for name, x in weights.items()}


def _batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return this rank's images, (batch, height, width), and labels."""
    draw = np.random.default_rng([43, step, stock.rank()])
    labels = draw.integers(0, CLASSES, 16)
    images = 0.5 * draw.standard_normal((16, SIZE, SIZE))
    images.reshape(16, -1)[np.arange(16), labels * 6] += 3.0
    return images, labels


@final
class _TensorFlowModel:
    """The model in TensorFlow, with gradients through the exchange, in one graph."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        self._natural = case.layouts == "natural"
        kept = _kept(weights, case.layouts)
        if self._natural:
            kept = {key: np.transpose(x, TRANSPOSED[key]) for key, x in kept.items()}
        self._variables = {key: tf.Variable(x, dtype=tf.float64) for key, x in kept.items()}
        self._exchange = made_exchange(case.compressor, {key: tf.constant(x) for key, x in kept.items()})
        self._function = tf.function(self._step, autograph=False)

    def step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> None:
        self._function(tf.constant(images), tf.constant(labels), tf.constant(rate, tf.float64))

    def weights(self) -> dict[str, np.ndarray]:
        found = {key: as_float64(v) for key, v in self._variables.items()}
        return {key: np.transpose(x, np.argsort(TRANSPOSED[key])) if self._natural else x for key, x in found.items()}

    def units(self) -> list[str]:
        return [f"{unit.name}: {unit.operator!r}" for unit in self._exchange.plan.units]

    def _step(self, images: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = self._loss(images, labels)
        grads = tape.gradient(loss, self._variables)
        for key, mean in self._exchange(grads, self._variables, rate).items():
            self._variables[key].assign_sub(rate * mean)

    def _loss(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        w = self._variables
        if not self._natural:
            w = {key: tf.transpose(tf.reshape(v, SHAPES[key]), TRANSPOSED[key]) for key, v in w.items()}
        x = tf.tanh(tf.nn.conv2d(images[..., None], w["first"], 1, "SAME"))
        x = tf.tanh(tf.nn.conv2d(x, w["second"], 1, "SAME"))
        logits = tf.reduce_max(x, axis=(1, 2)) @ w["last"] + w["bias"]
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


@final
class _TorchModel:
    """The model in torch, trained by the distributed optimizer."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        _initialise_torch()
        import torch

        import hvd_compress.torch as hvd

        self._torch = torch
        self._params = {key: torch.nn.Parameter(torch.tensor(x)) for key, x in _kept(weights, case.layouts).items()}
        plain = torch.optim.SGD(self._params.values(), lr=1.0)
        self._optimizer: Any = hvd.DistributedOptimizer(
            plain, self._params.items(), compression=case.compressor, allow_larger=True, bucket_megabytes=1e6
        )

    def step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> None:
        torch, w = self._torch, {key: p.reshape(SHAPES[key]) for key, p in self._params.items()}
        functions = torch.nn.functional
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.zero_grad()
        x = torch.tanh(functions.conv2d(torch.tensor(images)[:, None], w["first"], padding="same"))
        x = torch.tanh(functions.conv2d(x, w["second"], padding="same"))
        logits = x.amax(dim=(2, 3)) @ w["last"].T + w["bias"]
        functions.cross_entropy(logits, torch.tensor(labels)).backward()
        self._optimizer.step()

    def weights(self) -> dict[str, np.ndarray]:
        return {key: p.detach().numpy().copy() for key, p in self._params.items()}

    def units(self) -> list[str]:
        return [f"{unit.name}: {unit.operator!r}" for unit in self._optimizer.exchange.plan.units]


def _initialise_torch() -> None:
    """Initialise Horovod's torch side, a second library in this process, as all ranks do at the same time."""
    # Process sets ask the library that was imported last: it is initialised at once.
    import horovod.torch as stock_torch
    import torch

    if stock_torch.is_initialized():
        return
    torch.set_num_threads(1)
    if os.environ.get("HOROVOD_CONTROLLER") == "gloo" and stock.size() > 1:
        # Where the launcher's server holds the addresses of the first library, ranks would take them for the second's.
        port = None
        if stock.rank() == 0:
            server = RendezvousServer()
            port = server.start()
            server.init(get_host_assignments(parse_hosts(f"localhost:{stock.size()}"), stock.size()))
        os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = "127.0.0.1"
        os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"] = str(gathered(port)[0])
    stock_torch.init(process_sets=list(SETS.values()))
    assert (stock_torch.rank(), stock_torch.size()) == (stock.rank(), stock.size())
