"""Law: what comes back has the shape, element type and device of what went in, and is equal on all ranks."""

from __future__ import annotations

import pytest
from cases import Library, Row, bits, dtype_of, normal_gradients, simulator_of

from hvd_compress import ConfigurationError


def test_shape_dtype_and_device_are_kept(row: Row, library: Library) -> None:
    for dtype in row.dtypes(library):
        simulator = simulator_of(row, 2, library, decay=True)
        for step in range(2):
            gradients = library.arrays(normal_gradients(2, step), dtype)
            for own, means in zip(gradients, simulator.step(gradients), strict=True):
                assert set(means) == set(own)
                for name, gradient in own.items():
                    assert type(means[name]) is type(gradient)
                    assert tuple(means[name].shape) == tuple(gradient.shape)
                    assert dtype_of(means[name]) == dtype
                    assert str(means[name].device) == str(gradient.device)


def test_all_ranks_apply_the_same_bits(row: Row, library: Library, world_size: int) -> None:
    simulator = simulator_of(row, world_size, library, decay=True)
    for step in range(4):
        means = simulator.step(library.arrays(normal_gradients(world_size, step)))
        for other in means[1:]:
            assert {name: bits(x) for name, x in other.items()} == {name: bits(x) for name, x in means[0].items()}


def test_what_cannot_be_carried_is_refused_by_name(row: Row, library: Library) -> None:
    for dtype in row.refuses:
        if dtype in library.dtypes:
            with pytest.raises(ConfigurationError, match=dtype):
                simulator_of(row, 2, library, decay=True).step(library.arrays(normal_gradients(2), dtype))
