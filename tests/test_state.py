"""Law: state is named and declared; saved, loaded and continued, a run is the run that was not interrupted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import MODEL, NUMPY, TORCH, Library, Row, bits, normal_gradients, simulator_of, wide

from hvd_compress import Cast, ConfigurationError, LowRank, PowerSGD, Simulator
from hvd_compress.contract import Scope, state_bytes, walk

W = 2


def run(simulator: Simulator, library: Library, steps: range) -> list[dict[str, bytes]]:
    """Return the bits of every step's means."""
    means = [simulator.step(library.arrays(normal_gradients(W, step)))[0] for step in steps]
    return [{name: bits(x) for name, x in own.items()} for own in means]


def leaf_bits(saved: list[dict[str, Any]]) -> list[dict[str, dict[str, bytes]]]:
    """Return the bits of every leaf; those of joined units are saved by parameter."""
    return [{n: {p: bits(x) for p, x in walk(unit["leaves"])} for n, unit in own["units"].items()} for own in saved]


def test_continued_is_uninterrupted(row: Row, library: Library) -> None:
    """Bit by bit, and a state that is saved again right after it was loaded is the same state."""
    gradients = library.arrays(normal_gradients(W))
    simulator = simulator_of(row, W, library, decay=True)
    states, results = [], []
    for step in range(5):
        states.append(simulator.state_dicts() if step else [])
        results += run(simulator, library, range(step, step + 1))
    for saved_after in (1, 4):
        resumed = simulator_of(row, W, library, decay=True)
        resumed.load_state_dicts(states[saved_after], gradients)
        assert leaf_bits(resumed.state_dicts()) == leaf_bits(states[saved_after])
        assert [worker.step for worker in resumed.workers] == [saved_after] * W
        assert run(resumed, library, range(saved_after, 5)) == results[saved_after:]


def test_leaves_are_as_declared(row: Row, library: Library) -> None:
    """Names, shapes, element types and bytes; and what is replicated is equal on all workers, bit by bit."""
    for dtype in row.dtypes(library):
        simulator = simulator_of(row, W, library, decay=True)
        for step in range(2):
            simulator.step(library.arrays(normal_gradients(W, step), dtype))
        first, second = simulator.state_dicts()
        for unit in simulator.plan.units:
            declared = dict(walk(unit.operator.leaves(unit.spec, simulator.world_size)))
            found, others = (own["units"][unit.name]["leaves"] for own in (first, second))
            assert set(found) == set(declared)
            held = 0
            for path, leaf in declared.items():
                pieces = _pieces(found[path])
                if isinstance(found[path], dict):
                    assert [(name, x.shape) for name, x in zip(found[path], pieces, strict=True)] == [
                        (name, spec.shape) for name, spec in unit.parameters
                    ]
                    assert sum(x.size for x in pieces) == unit.spec.size
                else:
                    assert pieces[0].shape == leaf.shape
                assert {str(x.dtype) for x in pieces} == {leaf.dtype}
                if leaf.scope is Scope.REPLICATED:
                    assert [bits(x) for x in pieces] == [bits(x) for x in _pieces(others[path])]
                held += sum(x.nbytes for x in pieces)
            assert state_bytes(unit.operator.leaves(unit.spec, simulator.world_size)) == held


def _pieces(leaf: Any) -> list[np.ndarray]:
    """Return a saved leaf as NumPy arrays, several where it is saved by parameter."""
    arrays = leaf.values() if isinstance(leaf, dict) else [leaf]
    return [np.asarray(x.cpu().numpy() if hasattr(x, "cpu") else x) for x in arrays]


def test_what_was_saved_does_not_change_later(row: Row, library: Library) -> None:
    simulator = simulator_of(row, W, library, decay=True)
    run(simulator, library, range(2))
    saved = simulator.state_dicts()
    before = leaf_bits(saved)
    run(simulator, library, range(2, 4))
    assert leaf_bits(saved) == before


@pytest.mark.mutable
def test_changing_a_saved_state_changes_nothing(row: Row, library: Library) -> None:
    """Neither of the run that it was saved from, nor of one that has loaded it."""
    simulator = simulator_of(row, W, library, decay=True)
    run(simulator, library, range(2))
    untouched, spoilt = simulator.state_dicts(), simulator.state_dicts()
    resumed = simulator_of(row, W, library, decay=True)
    resumed.load_state_dicts(spoilt, library.arrays(normal_gradients(W)))
    for own in spoilt:
        for unit in own["units"].values():
            for _, x in walk(unit["leaves"]):
                x[...] = 7
    assert leaf_bits(simulator.state_dicts()) == leaf_bits(untouched)
    assert leaf_bits(resumed.state_dicts()) == leaf_bits(untouched)


def test_a_state_moves_between_libraries() -> None:
    """Saved from NumPy, a state continues in torch, and the other way."""
    for source, target in ((NUMPY, TORCH), (TORCH, NUMPY)):
        simulator = Simulator(PowerSGD(rank=2), W)
        run(simulator, source, range(3))
        resumed = Simulator(PowerSGD(rank=2), W)
        resumed.load_state_dicts(simulator.state_dicts(), target.arrays(normal_gradients(W)))
        expected = simulator.step(source.arrays(normal_gradients(W, 3)))[0]
        for name, x in resumed.step(target.arrays(normal_gradients(W, 3)))[0].items():
            assert type(x) is type(target.array(0.0))
            np.testing.assert_allclose(wide(x), wide(expected[name]), atol=1e-4)


def test_state_is_keyed_by_name_not_by_position() -> None:
    """The same model with its parameters in another order continues alike."""
    simulator, resumed = Simulator(PowerSGD(rank=2), W), Simulator(PowerSGD(rank=2), W)
    run(simulator, NUMPY, range(2))
    turned = dict(reversed(MODEL.items()))
    resumed.load_state_dicts(simulator.state_dicts(), NUMPY.arrays(normal_gradients(W, 0, turned)))
    gradients = NUMPY.arrays(normal_gradients(W, 2))
    expected = simulator.step(gradients)[0]
    means = resumed.step([dict(reversed(own.items())) for own in gradients])[0]
    assert {name: bits(x) for name, x in means.items()} == {name: bits(x) for name, x in expected.items()}


def saved_states(compressor: Any = None, world: int = W) -> list[dict[str, Any]]:
    simulator = Simulator(compressor or PowerSGD(rank=2), world)
    simulator.step(NUMPY.arrays(normal_gradients(world)))
    return simulator.state_dicts()


def test_a_state_of_another_compressor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"PowerSGD\(rank=2\).*PowerSGD\(rank=3\)"):
        Simulator(PowerSGD(rank=3), W).load_state_dicts(saved_states(), NUMPY.arrays(normal_gradients(W)))


def test_a_state_of_another_world_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="world_size 3"):
        Simulator(PowerSGD(rank=2), W).load_state_dicts(saved_states(world=3), NUMPY.arrays(normal_gradients(W)))


def test_a_state_of_another_rank_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rank 1"):
        Simulator(PowerSGD(rank=2), W).load_state_dicts(saved_states()[::-1], NUMPY.arrays(normal_gradients(W)))


@pytest.mark.parametrize("change", [{"matrix": (9, 12)}, {"another": (4, 4)}], ids=["shape", "name"])
def test_a_state_of_another_model_is_refused(change: dict[str, tuple[int, ...]]) -> None:
    gradients = NUMPY.arrays(normal_gradients(W, 0, {**MODEL, **change}))
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        Simulator(PowerSGD(rank=2), W).load_state_dicts(saved_states(), gradients)


def test_a_state_without_a_leaf_is_refused() -> None:
    saved = saved_states()
    del saved[0]["units"]["conv"]["leaves"]["inner.q"]
    simulator = Simulator(PowerSGD(rank=2), W)
    with pytest.raises(ConfigurationError, match=r"conv.*inner\.q"):
        simulator.load_state_dicts(saved, NUMPY.arrays(normal_gradients(W)))
        simulator.step(NUMPY.arrays(normal_gradients(W)))


def test_codecs_and_cold_starts_remember_nothing_that_changes() -> None:
    for compressor in (Cast(), LowRank(rank=2, warm_start=False)):
        simulator = Simulator(compressor, W)
        run(simulator, NUMPY, range(1))
        after_one = leaf_bits(simulator.state_dicts())
        run(simulator, NUMPY, range(1, 3))
        assert leaf_bits(simulator.state_dicts()) == after_one


def test_a_state_saved_before_the_first_step_loads() -> None:
    """There is nothing to remember yet; the run starts as any other."""
    saved = [
        {**own, "step": 0, "units": {n: {**u, "leaves": {}} for n, u in own["units"].items()}} for own in saved_states()
    ]
    resumed, fresh = Simulator(PowerSGD(rank=2), W), Simulator(PowerSGD(rank=2), W)
    resumed.load_state_dicts(saved, NUMPY.arrays(normal_gradients(W)))
    assert run(resumed, NUMPY, range(2)) == run(fresh, NUMPY, range(2))
