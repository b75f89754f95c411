"""Fusion: what can travel together does, and everybody gets back what they asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cases import TORCH, Library, bits, dtype_of, wide
from hypothesis import given
from hypothesis import strategies as st
from oracles.collectives import collective

from hvd_compress import ConfigurationError, Identity, Spec, UsageError
from hvd_compress.contract import AllGather, AllToAll, Broadcast, Mean, Sum
from hvd_compress.description.collectives import collectives_of
from hvd_compress.exchange import make_plan
from hvd_compress.exchange.fusion import empty_result, fuse
from hvd_compress.ops import ops_of

KINDS = {"Mean": Mean, "Sum": Sum, "AllGather": AllGather, "AllToAll": AllToAll, "Broadcast": Broadcast}
WORLD = 3
Asked = tuple[str, tuple[int, ...], str, int]


def requests_of(library: Library, asked: Sequence[Asked], rank: int) -> list[tuple[int, Any, Any]]:
    """Return one worker's requests, with numbers of its own."""
    made = []
    for position, (kind, shape, dtype, root) in enumerate(asked):
        shape = (WORLD, *shape) if kind == "AllToAll" else shape
        values = np.random.default_rng([rank, position]).integers(-9, 9, shape)
        array = library.array(values, dtype)
        request = Broadcast(array, root) if kind == "Broadcast" else KINDS[kind](array)
        made.append((position, request, ops_of(array)))
    return made


def results(library: Library, asked: Sequence[Asked]) -> tuple[list[dict[int, Any]], list[list[Any]], list[list]]:
    """Return what each worker gets by fusion, what each should, and the fused collectives of each."""
    requests = [requests_of(library, asked, rank) for rank in range(WORLD)]
    fused = [fuse(own) for own in requests]
    got: list[dict[int, Any]] = [{} for _ in range(WORLD)]
    for i, first in enumerate(fused[0]):
        arrays = [own[i].request.array for own in fused]
        root = getattr(first.request, "root", 0)
        for rank, result in enumerate(collective(type(first.request).__name__, arrays, root)):
            got[rank].update(fused[rank][i].unpack(result))
    for rank, own in enumerate(requests):
        for position, request, ops in own:
            if position not in got[rank]:
                got[rank][position] = empty_result(request, ops, WORLD)
    expected = []
    for position, (kind, _, _, root) in enumerate(asked):
        expected.append(collective(kind, [own[position][1].array for own in requests], root))
    return got, expected, fused


SHAPES = st.sampled_from([(), (1,), (3,), (2, 2), (0,), (4, 0), (1, 2, 3)])
ASKED = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)), SHAPES, st.sampled_from(["float16", "float32", "int32"]), st.integers(0, 2)
    ),
    max_size=9,
)


@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(asked=ASKED)
def test_fused_is_as_if_each_travelled_alone(name: str, asked: list[Asked]) -> None:
    got, expected, _ = results(Library(name), asked)
    for rank in range(WORLD):
        assert sorted(got[rank]) == list(range(len(asked)))
        for position, (_, _, dtype, _) in enumerate(asked):
            mine, right = got[rank][position], expected[position][rank]
            assert tuple(mine.shape) == tuple(right.shape)
            assert dtype_of(mine) == (dtype if 0 in right.shape else dtype_of(right))
            assert np.array_equal(wide(mine), wide(right))


@given(asked=ASKED)
def test_one_collective_per_kind_and_element_type_of_what_is_added_up(asked: list[Asked]) -> None:
    fused = fuse(requests_of(TORCH, asked, 0))
    full = [
        (kind, dtype if kind in ("Mean", "Sum") else None, root if kind == "Broadcast" else None)
        for kind, shape, dtype, root in asked
        if 0 not in shape
    ]
    assert len(fused) == len(set(full))
    assert len({f.label for f in fused}) == len(fused)
    assert sum(len(f.members) for f in fused) == len(full)


def test_labels_are_equal_on_all_ranks_and_say_what_travels() -> None:
    asked: list[Asked] = [
        ("Mean", (2,), "float32", 0),
        ("Broadcast", (2,), "float16", 1),
        ("AllGather", (), "int32", 0),
    ]
    labels = [[f.label for f in fuse(requests_of(TORCH, asked, rank))] for rank in range(WORLD)]
    assert labels[0] == ["mean.float32.2", "broadcast.float16.from1", "allgather.int32"]
    assert labels == [labels[0]] * WORLD


def test_what_is_moved_travels_as_bytes_where_element_types_differ() -> None:
    asked: list[Asked] = [("AllToAll", (5,), "int32", 0), ("AllToAll", (3,), "uint8", 0), ("AllToAll", (), "int32", 0)]
    (fused,) = fuse(requests_of(TORCH, asked, 0))
    assert fused.label == "alltoall.int32+uint8"
    assert dtype_of(fused.request.array) == "uint8"
    assert tuple(fused.request.array.shape) == (WORLD, 5 * 4 + 3 + 4)


def test_what_travels_apart_is_not_copied() -> None:
    arrays = [TORCH.array(np.full(4, i), "float32") for i in range(4)]
    requests = [Mean(x, donate=True, apart=i % 2 == 0) for i, x in enumerate(arrays)]
    fused = fuse([(i, request, ops_of(request.array)) for i, request in enumerate(requests)])
    assert sorted(sorted(m.position for m in f.members) for f in fused) == [[0], [1, 3], [2]]
    assert len({f.label for f in fused}) == 3
    for i in (0, 2):
        (alone,) = (f for f in fused if [m.position for m in f.members] == [i])
        assert alone.request.array.data_ptr() == arrays[i].data_ptr()


@pytest.mark.parametrize("most", [0, 4, 5, 16, 17, 64, 65])
def test_only_what_is_large_travels_apart(most: int) -> None:
    """A plan says from how many bytes on, and its description counts the same."""
    sizes = (1, 4, 1, 16)
    requests = [Mean(TORCH.array(np.zeros(size), "float32"), donate=True, apart=True) for size in sizes]
    fused = fuse([(i, request, ops_of(request.array)) for i, request in enumerate(requests)], most)
    alone = [i for i, size in enumerate(sizes) if 4 * size >= most]
    others = [i for i in range(len(sizes)) if i not in alone]
    expected = sorted([*([i] for i in alone), *([others] if others else [])])
    assert sorted([m.position for m in f.members] for f in fused) == expected
    plan = make_plan(Identity(), [(str(i), Spec((size,))) for i, size in enumerate(sizes)], WORLD, apart_bytes=most)
    assert collectives_of(plan, WORLD, 0) == len(expected)


@pytest.mark.parametrize("kind", [Mean, Sum])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
def test_bits_are_not_added_up(library: Library, kind: type, dtype: str) -> None:
    array = library.array(np.ones(3), dtype)
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__} of {dtype}"):
        fuse([(0, kind(array), ops_of(array))])


@pytest.mark.parametrize("kind", [AllGather, AllToAll])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_bits_are_moved(library: Library, kind: type, dtype: str) -> None:
    array = library.array(np.arange(6).reshape(3, 2), dtype)
    (fused,) = fuse([(0, kind(array), ops_of(array))])
    assert dtype_of(fused.request.array) == dtype
    assert sorted(wide(fused.request.array).ravel()) == list(range(6))


def test_what_is_no_request_is_refused() -> None:
    class Wish:
        array = np.ones(2)

    with pytest.raises(UsageError, match="Wish"):
        fuse([(0, Wish(), ops_of(Wish.array))])  # type: ignore[list-item]


@pytest.mark.mutable
def test_a_buffer_that_was_joined_may_be_overwritten_and_one_that_was_not_only_if_it_says_so(library: Library) -> None:
    x, y = library.array(np.ones(2)), library.array(np.ones(3))
    (alone,) = fuse([(0, Mean(x), ops_of(x))])
    (donated,) = fuse([(0, Mean(x, donate=True), ops_of(x))])
    (joined,) = fuse([(0, Mean(x), ops_of(x)), (1, Mean(y), ops_of(y))])
    assert [f.request.donate for f in (alone, donated, joined)] == [False, True, True]
    joined.request.array[...] = 5
    assert bits(x) == bits(library.array(np.ones(2)))
