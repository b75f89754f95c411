"""Small tensors whose operator asks for nothing but elements are exchanged as one, and nobody can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cases import Library, bits, normal_gradients, wide

from hvd_compress import PowerSGD, SketchedSGD
from hvd_compress.codecs import Cast, Identity
from hvd_compress.contract import Codec, Operator
from hvd_compress.description.collectives import collectives_of
from hvd_compress.drivers import Simulator
from hvd_compress.exchange import small_units as module
from hvd_compress.exchange import worker as worker_module
from hvd_compress.exchange.worker import Residual
from hvd_compress.feedback import ErrorFeedback, Momentum, MomentumCorrection
from hvd_compress.operators import AllReduce
from hvd_compress.ops import ops_of

SHAPES = {
    "scale": (),
    "bias": (7,),
    "small": (2, 3),
    "empty": (0,),
    "weight": (24, 20),
    "odd": (3, 1, 5),
    "large": (module.SMALL // 4 + 1,),
    "last": (1,),
}
WORLD = 3
REMEMBERING = [
    ErrorFeedback(AllReduce(Cast())),
    Momentum(AllReduce(Identity())),
    Momentum(ErrorFeedback(AllReduce(Cast())), dampening=0.5, nesterov=False),
    MomentumCorrection(AllReduce(Identity())),
    MomentumCorrection(AllReduce(Cast()), nesterov=True),
    SketchedSGD(ratio=0.1),
]


@pytest.fixture(params=[Identity(), Cast(), PowerSGD(rank=2), *REMEMBERING], ids=repr)
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


def story(compressor: Codec | Operator, change: Callable[[Simulator], Simulator]) -> tuple[list[bytes], list[object]]:
    """Return the means of four steps, with a change after the second, and what is saved in the end."""
    simulator = Simulator(compressor, WORLD)
    means: list[bytes] = []
    for step in range(4):
        simulator = change(simulator) if step == 2 else simulator
        taken = simulator.step(normal_gradients(WORLD, step, SHAPES))
        means += [bits(own[name]) for own in taken for name in SHAPES]
    leaves = [unit["leaves"] for saved in simulator.state_dicts() for unit in saved["units"].values()]
    return means, [{path: _bits(x) for path, x in own.items()} for own in leaves]


def _bits(leaf: object) -> object:
    return {name: bits(x) for name, x in leaf.items()} if isinstance(leaf, dict) else bits(leaf)


def saved_and_loaded(simulator: Simulator) -> Simulator:
    other = Simulator(simulator.compressor, WORLD)
    other.load_state_dicts(simulator.state_dicts(), normal_gradients(WORLD, 0, SHAPES))
    return other


def looked_at(simulator: Simulator) -> Simulator:
    for worker in simulator.workers:
        assert set(worker.memories()) <= set(SHAPES)
    return simulator


def changed(to: Codec | Operator, residual: Residual) -> Callable[[Simulator], Simulator]:
    def change(simulator: Simulator) -> Simulator:
        simulator.change_compression(to, residual)
        return simulator

    return change


CHANGES = {
    "nothing": lambda simulator: simulator,
    "saved and loaded": saved_and_loaded,
    "looked at": looked_at,
    "kept by feedback": changed(ErrorFeedback(AllReduce(Cast())), "keep"),
    "kept around momentum": changed(Momentum(AllReduce(Identity())), "keep"),
    "flushed": changed(MomentumCorrection(AllReduce(Identity())), "flush"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("remembering", REMEMBERING, ids=repr)
def test_what_is_remembered_together_is_remembered_apart(
    remembering: Operator, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = story(remembering, CHANGES[change])
    monkeypatch.setattr(worker_module, "small_units", lambda units: [])
    assert story(remembering, CHANGES[change]) == together


def test_a_group_of_other_units_starts_from_what_each_remembers() -> None:
    """Units of one group may be on other devices at a later step, and be grouped otherwise."""
    simulator = Simulator(Momentum(AllReduce(Identity())), 1)
    simulator.step([{name: np.ones(3) for name in "abcd"}])
    states = simulator.workers[0]._states
    units = simulator.plan.units
    first, second = module.SmallUnits(units[::2]), module.SmallUnits([units[1], units[3]])
    ops = ops_of(np.ones(3))
    for group in (first, second):
        taken = states.take_together(group, ops)
        assert np.array_equal(taken["momentum"], np.ones(6))
        states.keep_together(group, {**taken, "momentum": np.arange(6.0)})
    whole = states.take_together(module.SmallUnits(units), ops)
    assert np.array_equal(whole["momentum"], [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
