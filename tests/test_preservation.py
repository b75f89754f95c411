"""Law: what comes back has the shape, element type and device of what went in, and is equal on all ranks."""

from __future__ import annotations

import pytest
from cases import Library, Row, bits_of, dtype_of, normal_gradients, recorded, simulator_of

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
    for means in recorded(row, library, world_size).means:
        assert all(other == means[0] for other in means[1:])


@pytest.mark.parametrize("world", [5, 7])
def test_ranks_agree_where_nothing_divides_evenly(row: Row, world: int) -> None:
    """More workers than elements, shards of unequal length, ranks without partner: equal bits, and bytes as told."""
    library = Library(row.libraries[0])
    simulator = simulator_of(row, world, library, decay=True)
    for step in range(2):
        means = simulator.step(library.arrays(normal_gradients(world, step)))
        assert all(bits_of(other) == bits_of(means[0]) for other in means[1:])
    assert simulator.sent_bytes == sum(simulator.plan.wire_bytes(world, step) for step in range(2))


@pytest.mark.rows("refuses")
def test_what_cannot_be_carried_is_refused_by_name(row: Row, library: Library) -> None:
    for dtype in row.refuses:
        if dtype in library.dtypes:
            with pytest.raises(ConfigurationError, match=dtype):
                simulator_of(row, 2, library, decay=True).step(library.arrays(normal_gradients(2), dtype))
