"""Rows of sign compressors and what is built on them."""

from __future__ import annotations

from typing import Any

from row import Row

from hvd_compress import (
    AllGather,
    BlockSign,
    Cast,
    DistEFBlockSGD,
    DistEFBlockSGDM,
    DistEFSGD,
    DistEFSGDM,
    EFSignSGD,
    ErrorFeedback,
    Identity,
    Joined,
    LocalWeightDecay,
    Momentum,
    OneBit,
    OneBitSGD,
    Scaled,
    SignumMajorityVote,
    StepSizeScaling,
    TwoWay,
)

PLAIN = (1.0, 1.0)
RATE = 0.1


def _signs(name: str, compressor: Any, **more: Any) -> Row:
    """A projection on signs: ||x - C(x)||^2 = (1 - delta) ||x||^2 with delta of at least one over the size."""
    return Row(name, compressor, bound=lambda n, m: 1.0 - 1.0 / (n * m), **more)


def _scaled(name: str, compressor: Any, factor: float, **more: Any) -> Row:
    return Row(name, compressor, bound=lambda n, m: 1.0 - factor * (2.0 - factor) / (n * m), **more)


def _dist_ef(name: str, compressor: Any, *, momentum: bool = False, joined: bool = False, decay: bool = False) -> Row:
    memory = None if momentum else PLAIN
    more = {"memory": memory, "momentum": momentum, "joined": joined, "parameters": decay, "server": True}
    return Row(name, compressor, rate=RATE, **more)


ROWS = [
    _signs("block-sign", BlockSign()),
    _signs("block-sign-10", BlockSign(10)),
    _signs(
        "block-sign-10-feedback", ErrorFeedback(TwoWay(BlockSign(10), server_feedback=True)), memory=PLAIN, server=True
    ),
    _signs("block-sign-all-gather", AllGather(BlockSign()), flat=False),
    _signs("block-sign-feedback", ErrorFeedback(AllGather(BlockSign())), memory=PLAIN, flat=False),
    Row("sign-vote", TwoWay(BlockSign(scaled=False)), votes=True),
    _signs("one-bit", OneBit()),
    _signs("one-bit-feedback", ErrorFeedback(AllGather(OneBit())), memory=PLAIN, flat=False),
    _scaled("scaled-signs", Scaled(BlockSign(), 0.5), 0.25),  # scaled on the way there, and on the way back
    _scaled("scaled-feedback", ErrorFeedback(AllGather(Scaled(OneBit(), 0.75))), 0.75, memory=PLAIN, flat=False),
    _scaled("scaled-identity", ErrorFeedback(Scaled(Identity(), 0.5)), 0.5, memory=PLAIN),
    Row("joined-signs", Joined(BlockSign()), joined=True),
    Row("joined-small-feedback", Joined(ErrorFeedback(OneBit()), megabytes=500e-6), joined=True),
    _signs("ef-signsgd", EFSignSGD(), memory=PLAIN, flat=False),
    _signs("one-bit-sgd", OneBitSGD(), memory=PLAIN, server=True),
    Row("majority-vote", SignumMajorityVote(), votes=True, momentum=True, joined=True),
    Row("majority-vote-no-momentum", SignumMajorityVote(momentum=0.0), votes=True, joined=True),
    _dist_ef("dist-ef", DistEFSGD(), joined=True),
    _dist_ef("dist-ef-decay-cap", DistEFSGD(OneBit(), weight_decay=0.01, cap=2.0), joined=True, decay=True),
    _dist_ef("dist-ef-no-rate", DistEFSGD(Cast("bfloat16"), follow_step_size=False), joined=True),
    _dist_ef("dist-ef-m", DistEFSGDM(), momentum=True, joined=True),
    _dist_ef(
        "dist-ef-m-decay-cap",
        DistEFSGDM(OneBit(), weight_decay=0.01, cap=2.0, momentum=0.5),
        momentum=True,
        joined=True,
        decay=True,
    ),
    _dist_ef("dist-ef-m-no-rate", DistEFSGDM(follow_step_size=False), momentum=True, joined=True),
    _dist_ef("dist-ef-block", DistEFBlockSGD(BlockSign(block=256, min_size=8))),
    _dist_ef("dist-ef-block-joined", DistEFBlockSGD(OneBit(), cap=3.0, block=600e-6), joined=True),
    _dist_ef(
        "dist-ef-block-decay",
        DistEFBlockSGD(BlockSign(block=256), weight_decay=0.01, follow_step_size=False),
        decay=True,
    ),
    _dist_ef("dist-ef-block-m", DistEFBlockSGDM(BlockSign(block=256)), momentum=True),
    _dist_ef(
        "dist-ef-block-m-joined",
        DistEFBlockSGDM(BlockSign(block=256), block=600e-6, cap=3.0),
        momentum=True,
        joined=True,
    ),
    _dist_ef(
        "dist-ef-block-m-decay",
        DistEFBlockSGDM(OneBit(), weight_decay=0.01, follow_step_size=False, momentum=0.5),
        momentum=True,
        decay=True,
    ),
    Row("step-size", StepSizeScaling(ErrorFeedback(BlockSign()), cap=10.0), memory=PLAIN, rate=RATE),
    Row("momentum-signs", Momentum(ErrorFeedback(OneBit())), momentum=True),
    Row("local-decay", LocalWeightDecay(ErrorFeedback(BlockSign()), 0.1), parameters=True, memory=PLAIN),
]
