"""Law: a compressor is a value. Its repr makes it again, and equal settings are equal compressors."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from cases import ROWS, RoundedTo, Row

import hvd_compress


def test_repr_makes_it_again(row: Row) -> None:
    again = eval(repr(row.compressor), {**vars(hvd_compress), "RoundedTo": RoundedTo})
    assert type(again) is type(row.compressor)
    assert dataclasses.astuple(again) == dataclasses.astuple(row.compressor)


def test_equal_by_value(row: Row) -> None:
    again = dataclasses.replace(row.compressor)
    assert again is not row.compressor
    assert again == row.compressor
    assert hash(again) == hash(row.compressor)


def test_different_settings_are_different() -> None:
    assert len({row.compressor for row in ROWS}) == len(ROWS)
    assert len({repr(row.compressor) for row in ROWS}) == len(ROWS)


def test_settings_do_not_change(row: Row) -> None:
    for field in dataclasses.fields(row.compressor):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(row.compressor, field.name, None)


def test_copied_and_pickled(row: Row) -> None:
    assert copy.deepcopy(row.compressor) == row.compressor
    assert pickle.loads(pickle.dumps(row.compressor)) == row.compressor
