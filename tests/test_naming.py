"""Names that Keras numbers: the same model under other numbers, and what is not the same."""

from __future__ import annotations

import pytest

from hvd_compress.tensorflow.naming import differ_in_numbers_only, variable_names

FIRST = ["model/dense/kernel", "model/dense/bias", "model/dense_1/kernel", "model/dense_1/bias"]


@pytest.mark.parametrize(
    "others",
    [
        FIRST,
        ["model_1/dense_2/kernel", "model_1/dense_2/bias", "model_1/dense_3/kernel", "model_1/dense_3/bias"],
        ["model/dense_9/kernel", "model/dense_9/bias", "model/dense_10/kernel", "model/dense_10/bias"],
    ],
)
def test_the_same_model(others: list[str]) -> None:
    assert differ_in_numbers_only(FIRST, others) and differ_in_numbers_only(others, FIRST)


@pytest.mark.parametrize(
    "others",
    [
        [],
        FIRST[:2],
        [*FIRST[2:], *FIRST[:2]],
        ["model/dense_10/kernel", "model/dense_10/bias", "model/dense_9/kernel", "model/dense_9/bias"],
        ["model/dense/bias", "model/dense/kernel", "model/dense_1/kernel", "model/dense_1/bias"],
        ["model/conv/kernel", "model/conv/bias", "model/dense_1/kernel", "model/dense_1/bias"],
    ],
)
def test_another_model(others: list[str]) -> None:
    assert not differ_in_numbers_only(FIRST, others) and not differ_in_numbers_only(others, FIRST)


def test_equal_names_are_numbered() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    assert variable_names([Named("w:0"), Named("v"), Named("w:0"), Named("w")]) == ["w", "v", "w#1", "w#2"]
