"""One bucket's exchanges advance together: fused rounds, local work in between, and a count of it all."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from cases import MODEL, NUMPY, ROWS, Row, bits, normal_gradients, simulator_of

from hvd_compress import ConfigurationError, Simulator, UsageError
from hvd_compress.contract import AllGather, Broadcast, Exchanged, Mean, Meanwhile, Sum
from hvd_compress.drivers.transport import LoopbackTransport, RoundTrip, complete
from hvd_compress.exchange import BucketExchange, Meter, Worker
from hvd_compress.ops import ops_of

OPS = ops_of(np.zeros(1))


def asking(name: str, log: list[str]) -> Generator[Any, Any, Exchanged]:
    """Ask for a mean with local work around it, then for a sum."""
    x = np.full(2, float(len(name)), np.float32)
    before, mean, after = yield [
        Meanwhile(lambda: log.append(f"{name} before") or "b"),
        Mean(x),
        Meanwhile(lambda: log.append(f"{name} after") or "a"),
    ]
    log.append(f"{name} got {before}{after}{mean[0]:g}")
    (total,) = yield [Sum(x)]
    return Exchanged(total, None, {})


def test_local_work_happens_after_the_round_is_asked_and_before_it_is_answered() -> None:
    log: list[str] = []
    meter = Meter()
    exchange = BucketExchange({n: (asking(n, log), OPS) for n in ("u", "vv")}, 2, meter)
    assert log == []
    (fused,) = exchange.pending
    assert fused.request.array.tolist() == [1, 1, 2, 2]
    exchange.meanwhile()
    done = ["u before", "u after", "vv before", "vv after"]
    assert log == done
    exchange.meanwhile()
    assert log == done, "local work is done once"
    exchange.answer([np.float32([5, 5, 6, 6])])
    assert log == [*done, "u got ba5", "vv got ba6"]
    assert (exchange.done, exchange.round_number) == (False, 1)
    exchange.answer([np.float32([7, 7, 8, 8])])
    assert exchange.done
    assert {name: outcome.mean.tolist() for name, outcome in exchange.outcomes.items()} == {"u": [7, 7], "vv": [8, 8]}
    assert meter.collectives == 2
    assert meter.sent_bytes == 4 * 2 * 4


def test_local_work_that_nobody_called_for_is_done_all_the_same() -> None:
    log: list[str] = []
    exchange = BucketExchange({"u": (asking("u", log), OPS)}, 1, Meter())
    exchange.answer([np.ones(2, np.float32)])
    assert log == ["u before", "u after", "u got ba1"]


def test_units_with_more_rounds_go_on_alone() -> None:
    def short() -> Generator[Any, Any, Exchanged]:
        (x,) = yield [Sum(np.ones(1, np.float32))]
        return Exchanged(x, None, {})

    def none() -> Generator[Any, Any, Exchanged]:
        return Exchanged(np.zeros(0), None, {})
        yield

    log: list[str] = []
    exchange = BucketExchange({"s": (short(), OPS), "n": (none(), OPS), "u": (asking("u", log), OPS)}, 1, Meter())
    assert [fused.label for fused in exchange.pending] == ["sum.float32.1", "mean.float32.2"]
    assert list(exchange.outcomes) == ["n"]
    exchange.answer([fused.request.array for fused in exchange.pending])
    assert set(exchange.outcomes) == {"n", "s"}
    assert [fused.label for fused in exchange.pending] == ["sum.float32.2"]


def test_a_wrong_number_of_results_is_refused() -> None:
    exchange = BucketExchange({"u": (asking("u", []), OPS)}, 1, Meter())
    with pytest.raises(UsageError, match="1 collectives were pending, but 0"):
        exchange.answer([])


def test_a_round_of_local_work_alone_needs_no_collective() -> None:
    def local() -> Generator[Any, Any, Exchanged]:
        (x,) = yield [Meanwhile(lambda: np.ones(3))]
        return Exchanged(x, None, {})

    exchange = BucketExchange({"l": (local(), OPS)}, 4, Meter())
    assert exchange.pending == []
    exchange.answer([])
    assert exchange.outcomes["l"].mean.tolist() == [1, 1, 1]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if "numpy" in row.libraries])
def test_a_world_of_one_needs_no_network(row: Row) -> None:
    """Over a transport that hands everything back, one worker gets what the simulator gives one worker, in place."""
    simulator = simulator_of(row, 1, bucket_bytes=600)
    worker: Worker | None = None
    for step in range(4):
        (gradients,) = NUMPY.arrays(normal_gradients(1, step))
        expected = simulator.step([gradients])[0]
        worker = worker or Worker(
            simulator.plan, 0, 1, lambda name: row.rate, (simulator.parameters or dict.fromkeys(MODEL)).__getitem__
        )
        buckets = range(len(worker.plan.buckets))
        trips = [
            RoundTrip(worker.begin(b, gradients), LoopbackTransport(), f"bucket{b}", worker.meter) for b in buckets
        ]
        complete(trips)
        means = {
            n: x for b, trip in zip(buckets, trips, strict=True) for n, x in worker.finish(b, trip.exchange).items()
        }
        worker.end_step()
        assert {name: bits(x) for name, x in means.items()} == {name: bits(x) for name, x in expected.items()}


def test_loopback_returns_what_a_world_of_one_would() -> None:
    transport, x = LoopbackTransport(), np.arange(4.0)
    for request in (Mean(x), Sum(x), Broadcast(x, 0)):
        assert transport.finish(transport.start(request, "n")).tolist() == x.tolist()
    assert transport.finish(transport.start(AllGather(x), "n")).tolist() == [x.tolist()]


def test_a_bucket_is_started_once_a_step() -> None:
    simulator = Simulator("powersgd", 1)
    (gradients,) = NUMPY.arrays(normal_gradients(1))
    simulator.step([gradients])
    worker = Worker(simulator.plan, 0, 1)
    worker.begin(0, dict(gradients))
    with pytest.raises(UsageError, match="Bucket 0 was started already at step 0"):
        worker.begin(0, dict(gradients))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.zeros(7)}, r"'bias' is \[7\] float64, planned was \[7\] float32"),
        ({"bias": np.zeros(8, np.float32)}, r"'bias' is \[8\] float32, planned was \[7\] float32"),
        ({"bias": None}, "'bias' is missing; give zeros"),
        ({"bias": [0.0] * 7}, "list is not a supported array"),
    ],
    ids=["dtype", "shape", "missing", "list"],
)
def test_gradients_that_were_not_planned_are_refused(change: dict[str, Any], message: str) -> None:
    simulator = Simulator("powersgd", 1)
    (gradients,) = NUMPY.arrays(normal_gradients(1))
    simulator.step([gradients])
    worker = Worker(simulator.plan, 0, 1)
    changed = {name: x for name, x in {**gradients, **change}.items() if x is not None}
    with pytest.raises(ConfigurationError, match=message):
        worker.begin(0, changed)
