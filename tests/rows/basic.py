"""Rows of casts, averages, low rank and what wraps them."""

from __future__ import annotations

import importlib.util
from typing import Any

from row import Bound, RoundedTo, Row, cast, exact, factors

from hvd_compress import (
    AllGather,
    AllReduce,
    AlternatingLowRank,
    BestLowRank,
    Cast,
    ErrorFeedback,
    HorovodCompressor,
    Identity,
    LocalWeightDecay,
    LowRank,
    Momentum,
    MomentumCorrection,
    Operator,
    PowerSGD,
    StepSizeScaling,
    TwoWay,
    Warmup,
)


def _best(rank: int) -> Bound:
    return lambda n, m: 1.0 - min(rank, n, m) / min(n, m)


HALF, BRAIN = Cast("float16"), Cast("bfloat16")
KEEP = (1.0, 1.0)


def _moving(name: str, compressor: Operator, **more: Any) -> Row:
    """Return a row without loss whose update has momentum."""
    return Row(name, compressor, linear=True, momentum=True, bound=lambda n, m: 0.0, **more)


ROWS = [
    exact("identity", Identity()),
    cast("fp16", Cast(), "float16"),
    cast("bf16", Cast("bfloat16"), "bfloat16"),
    exact("allreduce-identity", AllReduce(Identity()), refuses=("bfloat16",)),
    cast("allreduce-fp16", AllReduce(Cast("float16")), "float16"),
    exact("two-way-identity", TwoWay(Identity())),
    cast("two-way-fp16", TwoWay(Cast("float16")), "float16"),
    cast("two-way-bf16", TwoWay(Cast("bfloat16")), "bfloat16"),
    factors("low-rank", LowRank()),
    factors("low-rank-1-seed", LowRank(rank=1, seed=3)),
    factors("low-rank-2-all", LowRank(rank=2, min_saving=0.0)),
    factors("low-rank-cold", LowRank(rank=2, warm_start=False)),
    factors("low-rank-cold-same-q", LowRank(rank=2, warm_start=False, resample=False)),
    factors("low-rank-3-iterations", LowRank(rank=2, power_iterations=3)),
    exact("low-rank-full", LowRank(rank=64, min_saving=0.0), factors=True),
    factors("alternating", AlternatingLowRank()),
    factors("alternating-3-all-seed", AlternatingLowRank(rank=3, min_saving=0.0, seed=5)),
    factors("best", BestLowRank(), bound=_best(4)),
    factors("best-1-all", BestLowRank(rank=1, min_saving=0.0), bound=_best(1)),
    exact("best-full", BestLowRank(rank=64, min_saving=0.0), factors=True),
    cast("warmup-codec", Warmup(2, Cast("bfloat16")), "bfloat16"),
    factors("warmup-low-rank", Warmup(2, LowRank(rank=2))),
    factors("warmup-alternating", Warmup(1, AlternatingLowRank(rank=2))),
    exact("warmup-for-ever", Warmup(99, LowRank(rank=1, min_saving=0.0))),
    exact("feedback-identity", ErrorFeedback(Identity()), memory=(1.0, 1.0)),
    cast("feedback-fp16", ErrorFeedback(Cast("float16")), "float16", memory=(1.0, 1.0)),
    cast("feedback-bf16", ErrorFeedback(Cast("bfloat16")), "bfloat16", memory=(1.0, 1.0)),
    cast("feedback-two-way-fp16", ErrorFeedback(TwoWay(Cast())), "float16", memory=(1.0, 1.0)),
    factors("feedback-low-rank", ErrorFeedback(LowRank(rank=2)), memory=(1.0, 1.0)),
    factors("feedback-low-pass", ErrorFeedback(LowRank(rank=2), a=0.1, b=1.0), memory=(0.1, 1.0)),
    factors("feedback-forgetting", ErrorFeedback(LowRank(rank=2), a=1.0, b=0.9), memory=(1.0, 0.9)),
    factors("feedback-halves", ErrorFeedback(LowRank(rank=2), a=0.5, b=0.5), memory=(0.5, 0.5)),
    cast("feedback-fp16-low-pass", ErrorFeedback(Cast(), a=0.5), "float16", memory=(0.5, 1.0)),
    factors("feedback-alternating", ErrorFeedback(AlternatingLowRank(rank=2)), memory=(1.0, 1.0)),
    factors("feedback-best", ErrorFeedback(BestLowRank(rank=2)), memory=(1.0, 1.0), bound=_best(2)),
    factors("feedback-warmup", ErrorFeedback(Warmup(2, LowRank(rank=2))), memory=(1.0, 1.0)),
    factors("powersgd", PowerSGD(), memory=(1.0, 1.0)),
    factors("powersgd-2-seed", PowerSGD(rank=2, seed=7), memory=(1.0, 1.0)),
    factors("powersgd-1-all", PowerSGD(rank=1, min_saving=0.0), memory=(1.0, 1.0)),
    factors("powersgd-cold", PowerSGD(rank=2, warm_start=False), memory=(1.0, 1.0)),
    factors("powersgd-cold-same-q", PowerSGD(rank=2, warm_start=False, resample=False), memory=(1.0, 1.0)),
    factors("powersgd-2-iterations", PowerSGD(rank=2, power_iterations=2), memory=(1.0, 1.0)),
    factors("powersgd-no-feedback", PowerSGD(rank=2, error_feedback=False)),
    factors("powersgd-alternate", PowerSGD(rank=2, alternate=True), memory=(1.0, 1.0)),
    factors("powersgd-start-after", PowerSGD(rank=2, start_after=2), memory=(1.0, 1.0)),
    factors("powersgd-alternate-odd", PowerSGD(rank=2, alternate=True, start_after=1), memory=(1.0, 1.0)),
    exact("powersgd-full", PowerSGD(rank=64, min_saving=0.0), memory=(1.0, 1.0), factors=True),
    cast("horovod-api", HorovodCompressor("row:HalfPrecision"), "float16", libraries=("torch",)),
    cast("horovod-instance", HorovodCompressor.of(RoundedTo("float16")), "float16", libraries=("torch",)),
    cast(
        "feedback-horovod-api",
        ErrorFeedback(HorovodCompressor("row:HalfPrecision")),
        "float16",
        memory=(1.0, 1.0),
        libraries=("torch",),
    ),
    exact("gather-identity", AllGather(Identity()), flat=False),
    cast("gather-fp16", AllGather(HALF), "float16", flat=False),
    cast("gather-bf16", AllGather(BRAIN), "bfloat16", flat=False),
    cast("feedback-gather-bf16", ErrorFeedback(AllGather(BRAIN)), "bfloat16", memory=KEEP, flat=False),
    exact("two-way-server-identity", TwoWay(Identity(), server_feedback=True), server=True),
    cast("two-way-server-fp16", TwoWay(HALF, server_feedback=True), "float16", server=True),
    cast("two-way-server-bf16", TwoWay(BRAIN, server_feedback=True), "bfloat16", server=True),
    cast("feedback-two-way-server-fp16", ErrorFeedback(TwoWay(HALF, True)), "float16", memory=KEEP, server=True),
    cast("feedback-two-way-server-bf16", ErrorFeedback(TwoWay(BRAIN, True)), "bfloat16", memory=KEEP, server=True),
    _moving("momentum", Momentum(Identity())),
    _moving("momentum-damped-identity", Momentum(Identity(), momentum=0.5, dampening=0.5, nesterov=False)),
    cast("momentum-fp16", Momentum(HALF, momentum=0.5), "float16", momentum=True),
    cast(
        "momentum-feedback-bf16",
        Momentum(ErrorFeedback(TwoWay(BRAIN, True)), dampening=0.25),
        "bfloat16",
        memory=KEEP,
        momentum=True,
        server=True,
    ),
    factors("momentum-powersgd", Momentum(PowerSGD(rank=2), nesterov=False), memory=KEEP, momentum=True),
    _moving("correction", MomentumCorrection(Identity()), memory=KEEP),
    _moving("correction-nesterov", MomentumCorrection(Identity(), nesterov=True, masking=False), memory=KEEP),
    cast("correction-bf16", MomentumCorrection(BRAIN, momentum=0.5), "bfloat16", memory=KEEP, momentum=True),
    factors("correction-low-rank", MomentumCorrection(LowRank(rank=2)), memory=KEEP, momentum=True),
    cast("step-size-fp16", StepSizeScaling(ErrorFeedback(HALF)), "float16", memory=KEEP, rate=0.1),
    cast(
        "step-size-server-bf16",
        StepSizeScaling(ErrorFeedback(TwoWay(BRAIN, True)), cap=1.5),
        "bfloat16",
        memory=KEEP,
        server=True,
        rate=0.1,
    ),
    factors("step-size-low-pass", StepSizeScaling(ErrorFeedback(LowRank(rank=2), a=0.5)), memory=(0.5, 1.0), rate=1.0),
    exact("step-size-nothing-owed", StepSizeScaling(Identity()), rate=0.1),
    exact("decay", LocalWeightDecay(Identity(), 0.1), parameters=True),
    cast("decay-fp16", LocalWeightDecay(HALF, 0.01, momentum=0.5), "float16", parameters=True),
    factors("decay-powersgd", LocalWeightDecay(PowerSGD(rank=2), 0.1, momentum=0.0), memory=KEEP, parameters=True),
    cast(
        "decay-momentum-step-size-bf16",
        StepSizeScaling(LocalWeightDecay(Momentum(ErrorFeedback(TwoWay(BRAIN, True))), 0.1)),
        "bfloat16",
        memory=KEEP,
        momentum=True,
        server=True,
        rate=0.1,
        parameters=True,
    ),
]

if importlib.util.find_spec("horovod") is not None:
    _STOCK = "horovod.torch.compression"
    ROWS += [
        cast("horovod-fp16", HorovodCompressor(f"{_STOCK}:FP16Compressor"), "float16", libraries=("torch",)),
        exact(
            "horovod-none",
            HorovodCompressor(f"{_STOCK}:NoneCompressor"),
            libraries=("torch",),
            refuses=("bfloat16",),
        ),
    ]
