"""Law: a memory loses nothing. What was not applied is in the memories, weighted as (a, b) say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cases import (
    HOST,
    ROWS,
    TENSORFLOW,
    Library,
    Row,
    dtype_of,
    inside,
    memory_of,
    normal_gradients,
    simulator_of,
    unit_of,
    wide,
)
from ideal import Ideal, correction_of, two_ways
from oracles.averaging import average_models
from oracles.collectives import lockstep
from rotation import TENSORFLOW_SHARE, in_turn

from hvd_compress import Spec, StepSizeScaling
from hvd_compress.contract import Context, Scope, initial_state, walk
from hvd_compress.exchange import Unit
from hvd_compress.ops import ops_of

STEPS = 6
RATES = (0.4, 0.4, 0.2, 0.0, 0.3, 0.1)


def rows_where(law: str, condition: Any) -> Any:
    """Return the axis of rows with a memory for which the condition holds, on every array library."""
    kept = [row for row in ROWS if memory_of(row) and condition(row)]
    pairs = []
    for library in HOST:
        rows = [row for row in kept if library.name in row.libraries]
        shown = in_turn(rows, law, TENSORFLOW_SHARE) if library is TENSORFLOW else rows
        pairs += [pytest.param(row, library, id=f"{row.id}-{library.name}") for row in shown]
    return pytest.mark.parametrize(("row", "library"), pairs)


def corrects(row: Row) -> bool:
    return correction_of(row) is not None


def flat(unit: Unit, model: dict[str, Any]) -> np.ndarray:
    """Return the numbers of a unit's parameters, in its order."""
    return np.concatenate([wide(model[name]).ravel() for name, _ in unit.parameters])


def mean_of(unit: Unit, saved: Sequence[dict[str, Any]], leaf: str) -> np.ndarray:
    """Return the mean over workers of all leaves of that name, element by element; zeros where there is none."""
    total = np.zeros(sum(spec.size for _, spec in unit.parameters))
    for own in saved:
        for path, array in own["units"][unit.name]["leaves"].items():
            if path.split(".")[-1] == leaf:
                total += flat(unit, array) if isinstance(array, dict) else wide(array).ravel()
    return total / len(saved)


def served(unit: Unit, saved: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return what the servers of all shards keep of an average, put together; zeros where there are none."""
    size = sum(spec.size for _, spec in unit.parameters)
    total = np.zeros(size)
    declared = dict(walk(unit.operator.leaves(unit.spec, len(saved))))
    for path, leaf in declared.items():
        if leaf.scope is Scope.SHARDED:
            assert path.split(".")[-1] == "server", "the row says `server`"
            shards = [wide(own["units"][unit.name]["leaves"][path]).ravel() for own in saved]
            total += np.concatenate(shards)[:size]
    return total


def owed_to(unit: Unit, saved: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return what workers and servers have not sent of the mean gradient."""
    return mean_of(unit, saved, "error") + served(unit, saved)


def forgets(unit: Unit) -> bool:
    """Whether a server encodes the unit's average again, and what that loses is in no memory."""
    return any(not server.server_feedback for server in two_ways(unit.operator, unit.spec))


def check(unit: Unit, found: np.ndarray, expected: np.ndarray, tolerance: float, scale: float) -> None:
    error = np.abs(found - expected).max(initial=0.0)
    assert error <= tolerance * scale, f"{unit.name}: off by {error:g}, allowed {tolerance * scale:g}"


@rows_where("sums", lambda row: not corrects(row) and not row.votes)
def test_nothing_is_lost(row: Row, library: Library, world_size: int) -> None:
    """sum_t b^(T-t) (mean gradient - what was applied) = mean memory + server's; for b = 1 the plain sums.

    Momentum before the memory is linear: then the sums are of the momenta. Where a server forgets what its own
    encoding loses, the sums are of what arrived there, and what is applied points the same way.
    """
    weights = memory_of(row)
    assert weights is not None
    decay, simulator, ideal = weights[1], simulator_of(row, world_size, library), Ideal(row)
    owed: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        gradients = normal_gradients(world_size, step)
        expected = ideal.step(gradients)
        means = simulator.step(library.arrays(gradients))[0]
        saved = simulator.state_dicts()
        for unit in simulator.plan.units:
            before = decay * owed.get(unit.name, 0.0) + flat(unit, expected)
            memory = owed_to(unit, saved)
            if forgets(unit):
                owed[unit.name] = memory
                assert not memory.size or np.sum((before - memory) * flat(unit, means)) > 0, unit.name
                continue
            owed[unit.name] = before - flat(unit, means)
            scale = max(4.0, float(np.abs(memory).max(initial=0.0)))
            check(unit, memory, owed[unit.name], row.tolerance(), scale * (step + 1))


@rows_where("rates", lambda row: row.rate is not None and not corrects(row))
def test_nothing_is_lost_while_the_learning_rate_changes(row: Row, library: Library) -> None:
    """sum_t eta_t (mean gradient - what was applied) = eta_T (mean memory + server's): what is owed keeps its rate.

    That is the iterate of training without loss, whatever the schedule; at a rate of 0 nothing is applied or owed.
    """
    weights = memory_of(row)
    assert weights is not None
    simulator, ideal = simulator_of(row, 3, library), Ideal(row)
    caps = [part.cap for part in inside(row.compressor) if isinstance(part, StepSizeScaling)]
    owed: dict[str, np.ndarray] = {}
    last = 0.0
    for step, rate in enumerate(RATES):
        simulator.learning_rate = rate
        gradients = normal_gradients(3, step)
        expected = ideal.step(gradients)
        means = simulator.step(library.arrays(gradients))[0]
        ratio = min(last / rate, min(caps)) if caps and rate else 1.0
        last = rate or last
        for unit in simulator.plan.units:
            if forgets(unit):
                continue  # told by the law above
            memory = owed_to(unit, simulator.state_dicts())
            if rate or not caps:
                before = weights[1] * ratio * owed.get(unit.name, np.zeros(memory.shape))
                owed[unit.name] = before + flat(unit, expected) - flat(unit, means)
            scale = max(4.0, float(np.abs(memory).max(initial=0.0)))
            check(unit, memory, owed.get(unit.name, np.zeros(memory.shape)), row.tolerance(), 2 * scale * (step + 1))


@rows_where("corrections", corrects)
def test_momentum_correction_loses_only_what_it_masks(row: Row, library: Library, world_size: int) -> None:
    """v' + what was applied = v + mu u + g on average over workers, with u as it was kept: masked or not.

    And an element of u is kept whole or masked, where v was sent.
    """
    correction = correction_of(row)
    assert correction is not None
    mu = correction.momentum
    simulator = simulator_of(row, world_size, library)
    saved: list[dict[str, Any]] = []
    for step in range(STEPS):
        gradients = normal_gradients(world_size, step)
        means = simulator.step(library.arrays(gradients))[0]
        before, saved = saved, simulator.state_dicts()
        for unit in simulator.plan.units:
            g = flat(unit, average_models(gradients))
            u = mean_of(unit, before, "momentum") if before else np.zeros(g.shape)
            owed = owed_to(unit, before) if before else np.zeros(g.shape)
            moved = mu * (u + g) if correction.nesterov else mu * u + g
            owed = owed + moved + (g if correction.nesterov else 0.0)
            scale = max(4.0, float(np.abs(owed).max(initial=0.0)))
            if forgets(unit):
                continue  # told by the law above
            check(unit, owed_to(unit, saved) + flat(unit, means), owed, row.tolerance(), scale * (step + 1))
            if "momentum" not in unit.operator.leaves(unit.spec, world_size):
                continue
            for rank in range(world_size):
                own = flat(unit, gradients[rank])
                old = mean_of(unit, before[rank : rank + 1], "momentum") if before else np.zeros(g.shape)
                whole = mu * (old + own) if correction.nesterov else mu * old + own
                kept = mean_of(unit, saved[rank : rank + 1], "momentum")
                near = np.abs(kept - whole) <= 1e-5 * scale
                assert (near | (kept == 0.0)).all(), unit.name
                assert correction.masking or near.all(), unit.name


@rows_where("own", lambda row: row.bound(12, 9) > 0)
def test_a_memory_is_one_workers_own(row: Row, library: Library) -> None:
    """Residuals are of each worker's gradient, not of the mean: equal ones would mean that somebody's is lost."""
    simulator = simulator_of(row, 2, library)
    for step in range(3):
        simulator.step(library.arrays(normal_gradients(2, step)))
    compressed = [unit for unit in simulator.plan.units if any(name == "conv" for name, _ in unit.parameters)]
    for unit in compressed:
        if unit.dense:
            continue
        first, second = (mean_of(unit, [own], "error") for own in simulator.state_dicts())
        assert np.abs(first).max() > 0
        assert np.abs(first - second).max() > 0.1 * np.abs(first).max()


def test_rest_is_what_was_not_contributed(row: Row, world_size: int) -> None:
    """The contract that every wrapper builds on: the mean over workers of (gradient - rest) is what is applied.

    But for what a server keeps of it or forgets, on the way back; a row with a memory has no rest, nor votes a mean.
    """
    if memory_of(row) or row.votes:
        return
    for shape in ((7,), (12, 9), (6, 4, 3, 3)):
        check_rest(row, world_size, shape)


def check_rest(row: Row, world_size: int, shape: tuple[int, ...]) -> None:
    library = Library(row.libraries[0])
    unit = unit_of(row, Spec(shape), world_size)
    operator, spec, shape = unit.operator, unit.spec, unit.spec.shape
    states: list[Any] = [None] * world_size
    ideal = Ideal(row)
    for step in range(3):
        values = [own["g"] for own in normal_gradients(world_size, step, {"g": shape})]
        expected = ideal.step([{"g": x} for x in values])["g"]
        gradients = [library.array(x) for x in values]
        ops = ops_of(gradients[0])
        if step == 0:
            states = [initial_state(operator.leaves(spec, len(gradients)), ops, "g") for _ in gradients]
        before = _sharded(operator, spec, states)
        contexts = [
            Context(
                ops, spec, "g", step, rank, world_size, row.rate, feedback=True, parameter=ops.zeros(shape, "float32")
            )
            for rank in range(world_size)
        ]
        exchanges = [
            operator.exchange(gradient, state, context)
            for gradient, state, context in zip(gradients, states, contexts, strict=True)
        ]
        outcomes, _ = lockstep(exchanges)
        states = [outcome.state for outcome in outcomes]
        if memory_of(row) or row.votes or forgets(unit):
            continue  # what a memory keeps is its own affair, told by the laws above
        rests = [np.zeros(shape) if outcome.rest is None else wide(outcome.rest) for outcome in outcomes]
        assert all(outcome.rest is None or dtype_of(outcome.rest) == "float32" for outcome in outcomes)
        applied = wide(outcomes[0].mean) + (_sharded(operator, spec, states) - before).reshape(shape)
        off = np.abs(expected - np.mean(rests, axis=0) - applied).max(initial=0.0)
        assert off <= row.tolerance() * max(4.0, float(np.abs(applied).max(initial=0.0)))


def _sharded(operator: Any, spec: Spec, states: Sequence[Any]) -> np.ndarray:
    """Return what all servers keep, put together."""
    total = np.zeros(spec.size)
    for path, leaf in walk(operator.leaves(spec, len(states))):
        if leaf.scope is Scope.SHARDED:
            total += np.concatenate([wide(dict(walk(state))[path]).ravel() for state in states])[: spec.size]
    return total
