"""Law: what is donated is the caller's again afterwards: nothing remembered is in it, nothing told by its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases import Library, Row, bits, bits_of, normal_gradients, overwrite, recorded, simulator_of

from hvd_compress import EFSignSGD, PowerSGD, Simulator
from hvd_compress.codecs import Identity
from hvd_compress.contract import Operator, Spec
from hvd_compress.drivers.simulate import run_lockstep
from hvd_compress.exchange.small_units import small_units
from hvd_compress.exchange.worker import Residual
from hvd_compress.ops import ops_of

WORLD = 2


def step_on_their_own(
    simulator: Simulator, gradients: Sequence[Mapping[str, Any]], orders: Sequence[Sequence[int]] = ()
) -> list[dict[str, Any]]:
    """Return what each worker gets, by exchanges that work on the gradients themselves, as a driver's do.

    Args:
        simulator: of the workers.
        gradients: of each worker; donated.
        orders: in which each worker starts its buckets; their order in the plan if not given.
    """
    simulator.set_up(gradients)
    buckets = range(len(simulator.plan.buckets))
    started = [
        {bucket: worker.begin(bucket, own) for bucket in order}
        for worker, own, order in zip(simulator.workers, gradients, orders or [buckets] * WORLD, strict=True)
    ]
    means: list[dict[str, Any]] = [{} for _ in simulator.workers]
    for bucket in buckets:
        run_lockstep([own[bucket] for own in started], range(len(started)))
        for worker, own, mean in zip(simulator.workers, started, means, strict=True):
            mean.update(worker.finish(bucket, own[bucket]))
    for worker in simulator.workers:
        worker.end_step()
    return means


@pytest.mark.mutable
def test_gradients_and_means_are_the_callers_afterwards(row: Row, library: Library) -> None:
    undisturbed = recorded(row, library, WORLD).means
    simulator = simulator_of(row, WORLD, library, decay=True)
    for step, expected in enumerate(undisturbed):
        gradients = library.arrays(normal_gradients(WORLD, step))
        means = step_on_their_own(simulator, gradients)
        assert [bits_of(own) for own in means] == expected
        for arrays in (*gradients, *means):
            for array in arrays.values():
                overwrite(array, 7.0)


@pytest.mark.parametrize("residual", ["keep", "flush", "drop"])
def test_buckets_may_start_in_any_order_after_a_change(residual: Residual) -> None:
    shapes = {"weight": (240, 200), "s1": (10,), "s2": (10,), "big": (40000,)}
    runs = []
    for orders in (((0, 1), (0, 1)), ((0, 1), (1, 0))):
        simulator = Simulator(PowerSGD(rank=2, min_saving=0.5), WORLD, bucket_bytes=4 * 240 * 200)
        for step in range(3):
            if step == 1:
                simulator.change_compression(EFSignSGD() if residual == "drop" else PowerSGD(rank=1), residual)
            gradients = [
                {name: np.float32(x) for name, x in own.items()} for own in normal_gradients(WORLD, step, shapes)
            ]
            means = step_on_their_own(simulator, gradients, orders if step else ())
            assert bits_of(means[0]) == bits_of(means[1])
        assert [len(bucket) for bucket in simulator.plan.buckets] == [1, 3]
        runs.append(bits_of(means[0]))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "method", [PowerSGD(rank=8), PowerSGD(rank=8, alternate=True), PowerSGD(rank=8, error_feedback=False)]
)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_means_are_bit_identical_whatever_the_layout_on_a_rank(method: Operator, name: str) -> None:
    library = Library(name)
    simulator = Simulator(method, WORLD)
    for step in range(2):
        first, second = (own["w"] for own in library.arrays(normal_gradients(WORLD, step, {"w": (500, 700)})))
        turned = np.asfortranarray(second) if name == "numpy" else second.t().contiguous().t()
        means = step_on_their_own(simulator, [{"w": first}, {"w": turned}])
        assert bits(means[0]["w"]) == bits(means[1]["w"])


def test_small_units_of_two_devices_are_not_joined() -> None:
    units = Simulator(Identity(), 1)
    units.set_up([{name: torch.ones(3) for name in "abcd"}])
    (group,) = small_units(units.plan.units)
    arrays = [torch.ones(3, device=device) for device in ("cpu", "meta", "cpu", "meta")]
    parts = group.join([(array, ops_of(array)) for array in arrays])
    assert [([unit.name for unit in taken.units], str(flat.device)) for taken, flat, _ in parts] == [
        (["a", "c"], "cpu"),
        (["b", "d"], "meta"),
    ]
    assert all(taken.spec == Spec((6,)) and taken.sizes == (3, 3) for taken, _, _ in parts)
