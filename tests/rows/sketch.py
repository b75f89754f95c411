"""Rows of count sketches and Sketched-SGD. The model of the table has 561 elements that they compress."""

from __future__ import annotations

from typing import Any

from row import Row, exact

from hvd_compress import CountSketch, ErrorFeedback, SketchedSGD

_MOST = {"ratio": 0.1, "min_size": 0}


def _sketch(name: str, compressor: Any, **more: Any) -> Row:
    return Row(name, compressor, sparse=True, joined=True, **{"linear": True, **more})


def _sgd(name: str, **settings: Any) -> Row:
    wire = "float16" if settings.get("half") else None
    momentum = settings.get("momentum") != 0.0
    # Rounding the shares of several workers turns choices that are nearly even.
    return _sketch(name, SketchedSGD(**{**_MOST, **settings}), momentum=momentum, wire=wire, linear=wire is None)


ROWS = [
    exact("count-sketch-of-large-tensors", CountSketch()),
    _sketch("count-sketch", CountSketch(**_MOST)),
    _sketch("count-sketch-k", CountSketch(k=40, min_size=0, rows=3, columns=300, candidates=6)),
    _sketch("count-sketch-polynomial", CountSketch(hashing="polynomial", columns=400, seed=3, **_MOST)),
    _sketch("count-sketch-estimates", CountSketch(columns=10**6, second_round=False, **_MOST)),
    exact("count-sketch-full", CountSketch(ratio=1.0, min_size=0), joined=True),
    _sketch("feedback-count-sketch", ErrorFeedback(CountSketch(**_MOST)), memory=(1.0, 1.0)),
    exact(
        "feedback-count-sketch-full", ErrorFeedback(CountSketch(ratio=1.0, min_size=0)), memory=(1.0, 1.0), joined=True
    ),
    _sgd("sketchedsgd"),
    _sgd("sketchedsgd-k", k=60, rows=3, columns=300, candidates=5),
    _sgd("sketchedsgd-no-momentum", momentum=0.0, seed=1),
    _sgd("sketchedsgd-no-masking", masking=False),
    _sgd("sketchedsgd-estimates", columns=10**6, second_round=False),
    _sgd("sketchedsgd-polynomial", hashing="polynomial", columns=500),
    # A column for every element: sums of several would not fit into float16 where each of them just does.
    _sgd("sketchedsgd-half", half=True, momentum=0.0, columns=10**6),
    exact("sketchedsgd-of-large-tensors", SketchedSGD(momentum=0.0)),
    exact("sketchedsgd-full", SketchedSGD(ratio=1.0, momentum=0.0, min_size=0), joined=True),
]
