"""Compressors by name, class, factory, instance or entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cases
import pytest

import hvd_compress
from hvd_compress import (
    Cast,
    ConfigurationError,
    HorovodCompressor,
    Identity,
    PowerSGD,
    UnknownCompressorError,
    names,
    register,
    registry,
    resolve,
)
from hvd_compress.registry import different_names


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", Identity()),
        ("none", Identity()),
        ("fp16", Cast("float16")),
        ("bf16", Cast("bfloat16")),
        ("powersgd", PowerSGD()),
        ("PowerSGD", PowerSGD()),
        ("Power-SGD", PowerSGD()),
        ("power_sgd", PowerSGD()),
        ("power sgd", PowerSGD()),
    ],
)
def test_names(name: str, expected: object) -> None:
    assert resolve(name) == expected


def test_every_name_resolves() -> None:
    assert names() == sorted(names())
    for name in names():
        assert isinstance(resolve(name), (hvd_compress.Operator, hvd_compress.Codec))


@pytest.mark.parametrize(("wrong", "near"), [("powersg", "powersgd"), ("fp61", "fp16"), ("bfloat", "bfloat16")])
def test_an_unknown_name_is_told_its_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownCompressorError, match=f"{wrong!r}; did you mean {near!r}"):
        resolve(wrong)


def test_different_names_are_all_that_is_known_once() -> None:
    found = [resolve(name) for name in different_names()]
    assert len(set(found)) == len(found)
    assert set(found) == {resolve(name) for name in names()}


def test_an_unknown_name_is_told_all_names() -> None:
    with pytest.raises(UnknownCompressorError) as raised:
        resolve("")
    assert all(name in str(raised.value) for name in names())


def test_instances_classes_and_factories() -> None:
    method = PowerSGD(rank=7)
    assert resolve(method) is method
    assert resolve(PowerSGD) == PowerSGD()
    assert resolve(Cast) == Cast()
    assert resolve(lambda: PowerSGD(rank=2)) == PowerSGD(rank=2)


def test_a_compressor_of_horovods_api_is_carried() -> None:
    expected = HorovodCompressor("row:HalfPrecision")
    assert resolve(cases.HalfPrecision) == expected
    carried = resolve(cases.HalfPrecision())
    assert isinstance(carried, HorovodCompressor)
    assert carried.path == expected.path


@pytest.mark.parametrize("wrong", [None, 4, 1.5, [PowerSGD()], object(), lambda: None, lambda: "powersgd", dict])
def test_what_is_no_compressor_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="is not a compressor"):
        resolve(wrong)


def test_register_adds_a_name() -> None:
    register("My-Method", lambda: PowerSGD(rank=9))
    assert resolve("mymethod") == PowerSGD(rank=9)
    assert "mymethod" in names()


@pytest.mark.parametrize("taken", ["powersgd", "Power_SGD", "fp16", "mine", "MINE"])
def test_a_taken_name_is_refused(taken: str) -> None:
    register("mine", PowerSGD)
    with pytest.raises(ConfigurationError, match=f"{taken!r} is taken"):
        register(taken, Identity)
    assert resolve("mine") == PowerSGD()


def test_an_entry_point_of_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by name and loaded only when it is asked for; a built-in name is not taken away."""
    (tmp_path / "third_party_compressors.py").write_text(
        "import hvd_compress\ndef make():\n    return hvd_compress.PowerSGD(rank=3)\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hvd_compress.compressors]\n"
        "third-party = third_party_compressors:make\n"
        "powersgd = third_party_compressors:make\n"
    )
    assert "thirdparty" not in names()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "thirdparty" in names()
    assert "third_party_compressors" not in sys.modules
    assert resolve("Third Party") == PowerSGD(rank=3)
    assert resolve("powersgd") == PowerSGD()
    monkeypatch.delitem(sys.modules, "third_party_compressors")
