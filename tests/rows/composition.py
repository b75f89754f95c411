"""Rows of schedules, policies and half-precision wires."""

from __future__ import annotations

from row import cast, exact, factors

from hvd_compress import (
    AlternatingLowRank,
    ByDimension,
    ByName,
    BySize,
    Cast,
    ErrorFeedback,
    Half,
    Identity,
    LowRank,
    PowerSGD,
    Schedule,
    TwoWay,
)

ROWS = [
    factors("schedule-rank", Schedule.of(PowerSGD(rank=1), rank={1: 2, 3: 4}), memory=(1.0, 1.0)),
    factors("schedule-operators", Schedule({0: LowRank(rank=1), 2: AlternatingLowRank(rank=2)})),
    factors("schedule-of-codecs", Schedule({0: Identity(), 2: PowerSGD(rank=2, min_saving=0.0)}), memory=(1.0, 1.0)),
    cast("schedule-cast", Schedule({0: Identity(), 2: Cast("bfloat16")}), "bfloat16"),
    factors("feedback-schedule", ErrorFeedback(Schedule.of(LowRank(rank=1), rank={2: 2})), memory=(1.0, 1.0)),
    factors(
        "by-name", ByName({"m*": PowerSGD(rank=1), "bias": Cast()}, PowerSGD(rank=2)), memory=(1.0, 1.0), wire="float16"
    ),
    factors("by-name-feedback", ErrorFeedback(ByName({"twin": LowRank()}, LowRank(rank=1))), memory=(1.0, 1.0)),
    cast("by-size", BySize({8: Identity()}, Cast()), "float16"),
    factors("by-size-three", BySize({40: Identity(), 110: LowRank()}, LowRank(rank=2))),
    cast("by-dimension", ByDimension({0: Identity(), 4: TwoWay(Cast("bfloat16"))}, Cast("bfloat16")), "bfloat16"),
    factors("by-dimension-schedule", ByDimension({2: Schedule.of(LowRank(rank=1), rank={1: 2})}, Identity())),
    cast("half-identity", Half(Identity()), "float16"),
    cast("half-two-way", Half(TwoWay(Identity())), "float16"),
    cast("half-feedback", ErrorFeedback(Half(Cast("bfloat16"))), "bfloat16", memory=(1.0, 1.0)),
    factors("half-powersgd", Half(PowerSGD(rank=2)), memory=(1.0, 1.0), wire="float16"),
    factors("half-low-rank", Half(LowRank(rank=2)), wire="float16"),
    factors("half-alternating", Half(AlternatingLowRank()), wire="float16"),
    exact("schedule-of-one", Schedule({0: Identity()})),
]
