"""The families of compressors that are tried over Horovod, with every framework."""

from __future__ import annotations

from typing import Any

from hvd_compress import (
    DGC,
    QSGD,
    AdaComp,
    AllGather,
    AllReduce,
    Atomo,
    BestLowRank,
    BlockSign,
    Cast,
    CountSketch,
    CyclicTopK,
    DistEFBlockSGDM,
    DistEFSGD,
    DistEFSGDM,
    EFSignSGD,
    ErrorFeedback,
    GradiVeQ,
    GTopK,
    Identity,
    LocalClip,
    LowRank,
    MemSGD,
    Natural,
    OneBitSGD,
    PowerSGD,
    QuantizedCompressiveSampling,
    ScaleCom,
    SharedScale,
    SignumMajorityVote,
    SketchedSGD,
    TernGrad,
    TopK,
    TwoWay,
    UnbiasedLowRank,
)

# Compressor, and the collectives of a step in one bucket: all that is ready together travels together.
BASIC: dict[str, tuple[Any, tuple[int, ...]]] = {
    "identity": (Identity(), (1,)),
    "powersgd": (PowerSGD(rank=2), (2,)),
    "powersgd-all": (PowerSGD(rank=2, min_saving=0), (2,)),
    "powersgd-full": (PowerSGD(rank=10**6, min_saving=0), (2,)),
    "powersgd-alternate": (PowerSGD(rank=2, alternate=True), (1,)),
    "powersgd-cold": (PowerSGD(rank=2, warm_start=False), (2,)),
    "powersgd-cold-same": (PowerSGD(rank=2, warm_start=False, resample=False), (2,)),
    "powersgd-two-iterations": (PowerSGD(rank=1, power_iterations=2), (4,)),
    "powersgd-later": (PowerSGD(rank=2, start_after=2), (1, 1, 2, 2, 2)),
    "powersgd-no-feedback": (PowerSGD(rank=2, error_feedback=False), (2,)),
    "low-rank": (LowRank(rank=3), (2,)),
    "best-low-rank": (ErrorFeedback(BestLowRank(rank=2)), (1,)),
    "fp16": (Cast("float16"), (1,)),
    "bf16": (Cast("bfloat16"), (2,)),
    "two-way": (TwoWay(Identity()), (2,)),
    "two-way-fp16": (TwoWay(Cast("float16")), (2,)),
    "feedback-fp16": (ErrorFeedback(Cast("float16")), (1,)),
    "feedback-bf16": (ErrorFeedback(Cast("bfloat16")), (2,)),
    "feedback-low-pass-fp16": (ErrorFeedback(AllReduce(Cast("float16")), a=0.5), (1,)),
}

SCALECOM: dict[str, Any] = {
    "chunked": ScaleCom(5, min_size=8),
    "low-pass": ScaleCom(10, beta=0.3, min_size=8),
    "forgetting": ScaleCom(10, beta=0.3, filter="forgetting", min_size=8),
    "exact": ScaleCom(5, selection="exact", min_size=8),
    "large-chunks": ScaleCom(300, min_size=400),
    "start-after": ScaleCom(5, start_after=2, min_size=8),
    "chunks": ScaleCom(5, min_size=8, chunks=(("conv*", 20), ("twin", 1))),
    "no-feedback": CyclicTopK(5, min_size=8),
    "expression": ErrorFeedback(CyclicTopK(4, "exact", 60), a=0.5),
}

SIGNS: dict[str, Any] = {
    "block-sgdm-decay": DistEFBlockSGDM(BlockSign(block=256), weight_decay=0.01),
    "block-sgdm-joined": DistEFBlockSGDM(BlockSign(block=256), block=2e-3, cap=5.0),
    "sgdm": DistEFSGDM(),
    "sgd-decay": DistEFSGD(weight_decay=0.01),
    "majority-vote": SignumMajorityVote(),
    "one-bit": OneBitSGD(),
    "ef-signsgd": EFSignSGD(),
}

# Maxima and integer sums know no rounding, and what is gathered is added up in rank order: every bit is the same.
QUANTISED: dict[str, Any] = {
    "shared-scale": SharedScale(levels=7, bucket=50),
    "shared-ternary": SharedScale(levels=1, bucket=0, clip=2.5),
    "shared-feedback": ErrorFeedback(SharedScale(levels=127)),
    "qsgd-two-way": TwoWay(QSGD(bucket=50)),
    "qsgd-gathered": AllGather(QSGD(levels=2, norm="max")),
    "terngrad": ErrorFeedback(TwoWay(TernGrad(), server_feedback=True)),
    "natural": TwoWay(Natural()),
    "compressive-sampling": QuantizedCompressiveSampling(block=64),
}

SPARSE: dict[str, Any] = {
    "gtopk": GTopK(0.05, min_size=8),
    "gtopk-one-element": GTopK(0.001, min_size=8),
    "gtopk-all": GTopK(1.0, min_size=8),
    "dgc": DGC(0.05, momentum=0.7, min_size=8),
    "dgc-all-settings": DGC(0.01, 0.5, nesterov=True, clip=5.0, warmup_steps=3, selection="chunked", min_size=8),
    "memsgd": MemSGD(0.05, min_size=8),
    "memsgd-chunked": MemSGD(0.05, "chunked", min_size=8),
    "memsgd-random": MemSGD(0.05, "random", min_size=8),
    "memsgd-block": MemSGD(0.05, "block", min_size=8),
    "adacomp": AdaComp(40, 50, 2, min_size=8),
    "two-way": ErrorFeedback(TwoWay(TopK(0.1, min_size=8), server_feedback=True)),
    "clipped": LocalClip(TopK(0.1, "chunked", min_size=8), 3.0),
}

# Compressor and tolerance.
SKETCHED: dict[str, tuple[Any, float]] = {
    "default": (SketchedSGD(min_size=100, k=20, columns=150), 1e-5),
    "no-masking": (SketchedSGD(min_size=100, k=20, columns=150, masking=False, momentum=0.5), 1e-5),
    "polynomial": (SketchedSGD(min_size=100, k=20, columns=150, hashing="polynomial"), 1e-5),
    "one-round": (SketchedSGD(min_size=100, k=20, columns=370, second_round=False), 1e-5),
    "half": (SketchedSGD(min_size=100, k=20, columns=150, half=True), 4e-3),
    "feedback": (ErrorFeedback(CountSketch(min_size=100, k=20, columns=150)), 1e-5),
}

# No gradient has fewer slices than a basis has vectors: rounding would choose the others.
SPECTRAL: dict[str, Any] = {
    "atomo": Atomo(rank=2),
    "gradiveq": GradiVeQ(8, 2, period=3, collect=1, min_saving=0.0),
    "gradiveq-feedback": GradiVeQ(6, 2, period=4, collect=2, error_feedback=True),
    "unbiased-low-rank": UnbiasedLowRank(rank=2, min_saving=0.0),
}
