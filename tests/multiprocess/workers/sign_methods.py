"""Methods that send signs train over Horovod as in the simulator, with what they need of the live optimizer."""

from __future__ import annotations

import horovod.torch as stock
import torch

import hvd_compress.torch as hvd
from hvd_compress import BlockSign, ConfigurationError, DistEFBlockSGDM, Simulator

from .common import assert_close, assert_equal_on_ranks, backward, gradients, parameters, raises
from .families import SIGNS as CASES
from .harness import check

STEPS, DROP = 8, 5


@check(cases=CASES)
def trains_as_in_the_simulator(case: str) -> None:
    """Weights are those of the simulator after every step, with a scheduler that drops the rate by ten on the way."""
    params = parameters(dtype=torch.float64)
    for name, x in gradients(99, dtype=torch.float64, size=1)[0].items():
        params[name].data.copy_(x)
    weights = {name: p.detach().clone() for name, p in params.items()}
    plain = torch.optim.SGD(params.values(), lr=0.125)
    optimizer = hvd.DistributedOptimizer(
        plain, named_parameters=params.items(), compression=CASES[case], allow_larger=True
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [DROP], gamma=0.1)
    simulator = Simulator(CASES[case], stock.size(), allow_larger=True)
    for step in range(STEPS):
        everyone = gradients(step, dtype=torch.float64)
        backward(params, everyone[stock.rank()])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        rate = 0.125 if step < DROP else 0.0125
        simulator.learning_rate, simulator.parameters = rate, weights
        # The driver plans last parameter first, as backward makes the gradients.
        update = simulator.step([dict(reversed(own.items())) for own in everyone])[stock.rank()]
        weights = {name: x - rate * update[name] for name, x in weights.items()}
        assert_close({name: p.detach() for name, p in params.items()}, weights)
    assert optimizer.exchange.plan.units == simulator.plan.units
    assert any(not unit.dense for unit in optimizer.exchange.plan.units)
    assert optimizer.exchange.meter.sent_bytes == simulator.sent_bytes
    assert_equal_on_ranks({name: p.detach() for name, p in params.items()})


@check(min_ranks=2)
def signs_send_a_small_part_of_dense() -> None:
    shapes = {"a": (512, 512), "b": (64,)}
    sent = {}
    for name, compressor in {"dense": "none", "signs": "distefblocksgdm"}.items():
        params = parameters(shapes)
        optimizer = hvd.DistributedOptimizer(
            torch.optim.SGD(params.values(), lr=0.1),
            named_parameters=params.items(),
            compression=compressor,
            allow_larger=True,
        )
        for step in range(2):
            backward(params, gradients(step, shapes)[stock.rank()])
            optimizer.synchronize()
            optimizer.zero_grad()
        sent[name] = optimizer.exchange.meter.sent_bytes
    assert sent["signs"] < sent["dense"] / 27


@check(cases=["DistEFSGDM", "DistEFBlockSGDM", "SignumMajorityVote"])
def momentum_in_the_optimizer_too_is_refused(name: str) -> None:
    params = parameters()
    plain = torch.optim.SGD(params.values(), lr=0.1, momentum=0.9)
    with raises(ConfigurationError, "momentum=0.9", "momentum of its own"):
        hvd.DistributedOptimizer(plain, named_parameters=params.items(), compression=name, allow_larger=True)


@check()
def momentum_of_adam_is_refused_too() -> None:
    params = parameters()
    with raises(ConfigurationError, "betas=(0.9, 0.999)", "momentum of its own"):
        hvd.DistributedOptimizer(
            torch.optim.Adam(params.values()), named_parameters=params.items(), compression="distefsgdm"
        )


@check()
def weight_decay_in_both_is_refused() -> None:
    params = parameters()
    plain = torch.optim.SGD(params.values(), lr=0.1, weight_decay=1e-4)
    with raises(ConfigurationError, "weight_decay=0.0001", "weight decay of its own"):
        hvd.DistributedOptimizer(
            plain, named_parameters=params.items(), compression=DistEFBlockSGDM(BlockSign(block=256), weight_decay=1e-4)
        )


@check(cases=["sum", "predivide"])
def factors_around_a_vote_are_refused(case: str) -> None:
    params = parameters()
    options = {"op": hvd.Sum} if case == "sum" else {"gradient_predivide_factor": 2.0}
    with raises(ConfigurationError, "do not grow with the gradient"):
        hvd.DistributedOptimizer(
            torch.optim.SGD(params.values(), lr=0.1),
            named_parameters=params.items(),
            compression="signummajorityvote",
            **options,
        )


@check()
def many_small_tensors_are_joined_with_those_of_one_learning_rate() -> None:
    """Residuals follow the rate of their parameter group, also at a step at which one group's rate is 0."""
    shapes = {f"w{i:03}": (8, 128) for i in range(140)}
    params = parameters(shapes, dtype=torch.float64)
    groups = [[name for i, name in enumerate(shapes) if i % 2 == odd] for odd in (0, 1)]
    plain = torch.optim.SGD([{"params": [params[name] for name in names]} for names in groups], lr=0.1)
    compressor = DistEFBlockSGDM(BlockSign(block=256))
    optimizer = hvd.DistributedOptimizer(plain, params.items(), compression=compressor, allow_larger=True)
    units = [{name for name, _ in unit.parameters} for unit in optimizer.exchange.plan.units]
    assert sorted(map(sorted, units)) == sorted(map(sorted, groups)), units
    simulators = [Simulator(compressor, stock.size(), allow_larger=True) for _ in groups]
    for step, rates in enumerate([(0.1, 0.1), (0.1, 0.01), (0.2, 0.0), (0.05, 0.3)]):
        for group, rate in zip(plain.param_groups, rates, strict=True):
            group["lr"] = rate
        everyones = gradients(step, shapes, dtype=torch.float64)
        backward(params, everyones[stock.rank()])
        optimizer.synchronize()
        for names, simulator, rate in zip(groups, simulators, rates, strict=True):
            simulator.learning_rate = rate
            # Gradients come from the last layer to the first.
            means = simulator.step([{name: own[name].clone() for name in reversed(names)} for own in everyones])
            found = {name: p.grad for name, p in params.items() if name in names and p.grad is not None}
            assert_close(found, means[stock.rank()])
        optimizer.zero_grad()
