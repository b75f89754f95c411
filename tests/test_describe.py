"""describe: what it tells from shapes alone is what the driver counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import MODEL, NUMPY, ROWS, Row, normal_gradients, simulator_of

from hvd_compress import (
    AllGather,
    Cast,
    ConfigurationError,
    ErrorFeedback,
    Half,
    Identity,
    Joined,
    PowerSGD,
    Schedule,
    Spec,
    TwoWay,
    UnknownCompressorError,
    describe,
)
from hvd_compress.cli import main
from hvd_compress.description.describe import describe_plan

SHAPES = {"fc.weight": (40, 30), "fc.bias": (40,), "scale": ()}


def check_costs(row: Row, world_size: int, bucket_bytes: float) -> None:
    simulator = simulator_of(row, world_size, bucket_bytes=bucket_bytes)
    sent = collectives = 0
    for step in range(3):
        simulator.step(NUMPY.arrays(normal_gradients(world_size, step)))
        meter = simulator.workers[0].meter
        described = describe_plan(simulator.plan, world_size, step)
        assert described.wire_bytes == meter.sent_bytes - sent
        assert described.collectives == meter.collectives - collectives
        sent, collectives = meter.sent_bytes, meter.collectives
    kept = 0
    for unit in simulator.state_dicts()[0]["units"].values():
        for leaf in unit["leaves"].values():
            kept += sum(x.nbytes for x in leaf.values()) if isinstance(leaf, dict) else leaf.nbytes
    assert described.state_bytes == kept


# torch's own rows have the same plans; what they send is counted by the law of bytes.
COUNTED = [row for row in ROWS if "numpy" in row.libraries]


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row.id)
def test_bytes_collectives_and_state_are_those_counted(row: Row) -> None:
    check_costs(row, 2, 600.0)


@pytest.mark.parametrize("row", COUNTED[::9], ids=lambda row: row.id)
@pytest.mark.parametrize("world_size", [1, 3, 5])
def test_costs_of_other_worlds_in_one_bucket(row: Row, world_size: int) -> None:
    check_costs(row, world_size, np.inf)


def test_numbers_of_powersgd() -> None:
    described = describe(PowerSGD(rank=2), SHAPES, 4)
    weight, bias, scale = described.units
    assert weight.wire_bytes == 2 * (40 + 30) * 4 * 6 / 4
    assert weight.dense_bytes == 40 * 30 * 4 * 6 / 4
    assert weight.ratio == 1200 / 140
    assert weight.state_bytes == 4 * (1200 + 2 * 2 * 30)
    assert (weight.rounds, bias.rounds) == (2, 1)
    assert (weight.passed_over, bias.passed_over, scale.passed_over) == ("", "small", "small")
    # The biases travel with the first factor; the second one travels alone.
    assert (described.collectives, described.rounds) == (2, 2)
    assert described.ratio == pytest.approx(1241 / 181)
    assert described.state_bytes == weight.state_bytes


def test_alternating_is_told_in_the_long_run() -> None:
    operator = PowerSGD(rank=1, alternate=True)
    assert describe(operator, SHAPES, 2).units[0].wire_bytes == (40 + 30) * 4 / 2
    assert describe(operator, SHAPES, 2, step=0).units[0].wire_bytes == 40 * 4
    assert describe(operator, SHAPES, 2, step=1).units[0].wire_bytes == 30 * 4


def test_a_step_may_be_chosen() -> None:
    schedule = Schedule.of(PowerSGD(rank=1), rank={100: 2, 200: 4})
    sent = [describe(schedule, SHAPES, 2, step=step).units[0].wire_bytes for step in (0, 99, 100, 200)]
    assert sent == [280, 280, 560, 1120]
    assert describe(schedule, SHAPES, 2).units[0].wire_bytes == 1120


@pytest.mark.parametrize("compressor", [Identity, "fp16", "powersgd:rank=2", Half(PowerSGD()), Joined(Cast(), 1.0)])
def test_whatever_can_be_given_as_compression(compressor: Any) -> None:
    assert describe(compressor, SHAPES).world_size == 2


def test_one_worker_sends_nothing() -> None:
    described = describe(PowerSGD(), SHAPES, 1)
    assert (described.wire_bytes, described.dense_bytes, described.ratio) == (0, 0, 1.0)


class Variable:
    """A Keras variable as far as it matters."""

    def __init__(self, path: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype


class KerasModel:
    """A Keras model as far as it matters."""

    trainable_variables = (Variable("dense/kernel", (30, 40), "float32"), Variable("dense/bias", (40,), "float16"))


def test_torch_modules_are_planned_as_their_driver_does() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(20, 30).to(torch.bfloat16))
    model[0].bias.requires_grad_(False)
    described = describe(PowerSGD(rank=1), model)
    expected = [("1.bias", Spec((30,), "bfloat16")), ("1.weight", Spec((30, 20), "bfloat16"))]
    assert [(unit.name, unit.spec) for unit in described.units] == [*expected, ("0.weight", Spec((8, 3, 3, 3)))]


def test_keras_models_are_planned_as_their_driver_does() -> None:
    described = describe(PowerSGD(rank=1), KerasModel())
    assert [unit.spec for unit in described.units] == [Spec((40,), "float16", -1), Spec((30, 40), "float32", -1)]
    assert [unit.name for unit in described.units] == ["dense/bias", "dense/kernel"]


def test_mappings_and_pairs() -> None:
    expected = [Spec((4, 3), "float64"), Spec((5,)), Spec(())]
    as_mapping = {"a": np.zeros((4, 3)), "b": [5], "c": ()}
    as_pairs = [("a", Spec((4, 3), "float64")), ("b", (5,)), ("c", np.zeros((), np.float32))]
    for model in (as_mapping, as_pairs):
        assert [unit.spec for unit in describe(Identity(), model).units] == expected


@pytest.mark.parametrize("model", [3, "cnn", [1, 2], {"a": "x"}, {"a": None}, {"a": (2.5,)}], ids=repr)
def test_what_has_no_shapes_is_refused(model: Any) -> None:
    with pytest.raises(ConfigurationError):
        describe(Identity(), model)


@pytest.mark.parametrize("world_size", [0, -1, True, 2.0])
def test_a_wrong_world_is_refused(world_size: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"world_size={world_size}"):
        describe(Identity(), SHAPES, world_size)


def test_the_table_tells_every_unit_and_the_total() -> None:
    text = str(describe(ErrorFeedback(TwoWay(Cast("bfloat16"))), MODEL, 3, allow_larger=True))
    lines = text.splitlines()
    assert lines[0].startswith("ErrorFeedback(TwoWay(Cast(dtype='bfloat16'))), 3 workers")
    assert all(any(line.strip().startswith(name) for line in lines) for name in MODEL)
    assert "no element" in next(line for line in lines if line.strip().startswith("empty"))
    assert "collectives: " in lines[-1]
    assert max(len(line) for line in lines) <= 200


def test_joined_units_are_told_whole() -> None:
    described = describe(Joined(AllGather(Cast()), np.inf), SHAPES, 2)
    (unit,) = described.units
    assert unit.parameters == ("fc.weight", "fc.bias", "scale")
    assert unit.spec.shape == (1241,)
    assert described.collectives == 1


def test_command_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "powersgd:rank=2", "--workers", "8"]) == 0
    assert "PowerSGD(rank=2), 8 workers" in capsys.readouterr().out
    assert main(["describe", "fp16", "--shapes", "lstm", "--step", "3", "--allow-larger"]) == 0
    assert "28869x650" in capsys.readouterr().out


def test_command_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shapes.json"
    path.write_text(json.dumps(SHAPES))
    assert main(["describe", "powersgd", "--shapes", str(path)]) == 0
    assert "40x30" in capsys.readouterr().out
    path.write_text("[1, 2]")
    assert main(["describe", "powersgd", "--shapes", str(path)]) == 2
    assert "holds no object" in capsys.readouterr().err


def test_command_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "powersgd", "--shapes", "nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert main(["describe", "powersdg"]) == 2
    assert "did you mean 'powersgd'" in capsys.readouterr().err
    with pytest.raises(UnknownCompressorError):
        describe("powersdg", SHAPES)
