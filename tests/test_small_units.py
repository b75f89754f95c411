"""Small tensors whose operator asks for nothing but elements are exchanged as one, and nobody can tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cases import Library, normal_gradients, wide

from hvd_compress import PowerSGD
from hvd_compress.codecs import Cast, Identity
from hvd_compress.contract import Codec, Operator
from hvd_compress.description.collectives import collectives_of
from hvd_compress.drivers import Simulator
from hvd_compress.exchange import small_units as module
from hvd_compress.exchange import worker as worker_module

SHAPES = {
    "scale": (),
    "bias": (7,),
    "small": (2, 3),
    "empty": (0,),
    "weight": (24, 20),
    "odd": (3, 1, 5),
    "large": (module._SMALL // 4 + 1,),
    "last": (1,),
}
WORLD = 3


@pytest.fixture(params=[Identity(), Cast(), PowerSGD(rank=2)], ids=repr)
def compressor(request: pytest.FixtureRequest) -> Iterator[Codec | Operator]:
    yield request.param


def run(library: Library, compressor: Codec | Operator) -> tuple[list[dict[str, np.ndarray]], int, int, int]:
    simulator = Simulator(compressor, WORLD)
    found: list[dict[str, np.ndarray]] = []
    for step in range(3):
        for means in simulator.step(library.arrays(normal_gradients(WORLD, step, SHAPES))):
            found.append({name: wide(x) for name, x in means.items()})
    meter = simulator.workers[0].meter
    declared = sum(simulator.plan.wire_bytes(WORLD, step) for step in range(3))
    assert meter.collectives == sum(collectives_of(simulator.plan, WORLD, step) for step in range(3))
    return found, meter.sent_bytes, declared, meter.collectives


def test_nothing_but_the_time_changes(
    library: Library, compressor: Codec | Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, sent, declared, collectives = run(library, compressor)
    monkeypatch.setattr(worker_module, "small_units", lambda units: [])
    apart, sent_apart, _, collectives_apart = run(library, compressor)
    assert sent == sent_apart == declared
    assert collectives == collectives_apart
    for one, other in zip(together, apart, strict=True):
        assert list(sorted(one)) == list(sorted(other)) == sorted(SHAPES)
        for name, mean in one.items():
            assert mean.shape == SHAPES[name]
            assert np.array_equal(mean, other[name]), name


def test_only_small_elementwise_units_are_taken_together(compressor: Codec | Operator) -> None:
    simulator = Simulator(compressor, WORLD)
    simulator.step([{name: np.ones(shape) for name, shape in SHAPES.items()}] * WORLD)
    (group,) = module.small_units(simulator.plan.units)
    taken = {unit.name for unit in group.units}
    matrix = {"weight"} if isinstance(compressor, PowerSGD) else set()
    assert taken == set(SHAPES) - {"empty", "large"} - matrix
    assert group.spec.size == sum(group.sizes) == sum(int(np.prod(SHAPES[name])) for name in taken)
