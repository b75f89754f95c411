"""Compressors by name, class, factory or instance; third parties add theirs by an entry point."""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from .codecs import QSGD, BlockSign, Cast, Identity, Natural, OneBit, TernGrad, TopK
from .contract import Codec, Operator
from .errors import ConfigurationError, UnknownCompressorError
from .methods import (
    DGC,
    ECQSGD,
    AdaComp,
    Atomo,
    DistEFBlockSGD,
    DistEFBlockSGDM,
    DistEFSGD,
    DistEFSGDM,
    EFSignSGD,
    GradiVeQ,
    GTopK,
    MemSGD,
    OneBitSGD,
    PowerSGD,
    QuantizedCompressiveSampling,
    ScaleCom,
    SignumMajorityVote,
    SketchedSGD,
    UnbiasedLowRank,
)
from .operators import AllGather, HorovodCompressor, RandomBlock, RandomK, SharedScale, TwoWay

ENTRY_POINT_GROUP = "hvd_compress.compressors"
Factory = Callable[[], "Operator | Codec"]

_BUILT_IN: dict[str, Factory] = {
    "dense": Identity,
    "identity": Identity,
    "none": Identity,
    "fp16": lambda: Cast("float16"),
    "bf16": lambda: Cast("bfloat16"),
    "bfloat16": lambda: Cast("bfloat16"),
    "float16": lambda: Cast("float16"),
    "powersgd": PowerSGD,
    "atomo": Atomo,
    "gradiveq": GradiVeQ,
    "unbiasedlowrank": UnbiasedLowRank,
    "scalecom": ScaleCom,
    "blocksign": BlockSign,
    "onebit": OneBit,
    "distefblocksgd": DistEFBlockSGD,
    "distefblocksgdm": DistEFBlockSGDM,
    "distefsgd": DistEFSGD,
    "distefsgdm": DistEFSGDM,
    "efsignsgd": EFSignSGD,
    "onebitsgd": OneBitSGD,
    "signummajorityvote": SignumMajorityVote,
    "sketchedsgd": SketchedSGD,
    "ecqsgd": ECQSGD,
    "natural": lambda: TwoWay(Natural()),
    "qsgd": lambda: AllGather(QSGD()),
    "qsgdshared": SharedScale,
    "qsgdtwoway": lambda: TwoWay(QSGD()),
    "quantizedcompressivesampling": QuantizedCompressiveSampling,
    "adacomp": AdaComp,
    "dgc": DGC,
    "gtopk": GTopK,
    "localtopk": MemSGD,
    "memsgd": MemSGD,
    "randomblock": RandomBlock,
    "randomk": RandomK,
    "topk": TopK,
    "terngrad": lambda: AllGather(TernGrad()),
    "terngradshared": lambda: SharedScale(levels=1, bucket=0, clip=2.5),
}
_registered: dict[str, Factory] = {}


def register(name: str, factory: Factory) -> None:
    """Make `compression=name` mean `factory()`.

    Args:
        name: compared without regard to case, "-", "_" and spaces.
        factory: a class or function that is called without arguments.

    Raises:
        ConfigurationError: the name is taken.
    """
    key = _key(name)
    if key in _BUILT_IN or key in _registered:
        raise ConfigurationError(f"The compressor name {name!r} is taken; choose another.")
    _registered[key] = factory


def names() -> list[str]:
    """Return every known compressor name."""
    return sorted({*_BUILT_IN, *_registered, *_entry_points()})


def different_names() -> list[str]:
    """Return one name for every known compressor: of those that mean the same, the first in the alphabet."""
    found: dict[Operator | Codec, str] = {}
    for name in names():
        found.setdefault(resolve(name), name)
    return list(found.values())


def resolve(compression: Any) -> Operator | Codec:
    """Return the compressor that a user means.

    Args:
        compression: an operator or codec; a class or factory that is called without arguments; a name, with settings
            if any ("powersgd:rank=2"); or a compressor of Horovod's own API, such as `hvd.Compression.fp16`.

    Raises:
        UnknownCompressorError: no compressor has that name; the nearest name is given.
        ConfigurationError: it is none of these.
    """
    if isinstance(compression, (Operator, Codec)):
        return compression
    if isinstance(compression, str):
        return _by_name(compression)
    if isinstance(compression, type) and issubclass(compression, (Operator, Codec)):
        return compression()
    if hasattr(compression, "compress") and hasattr(compression, "decompress"):
        return HorovodCompressor.of(compression)
    if callable(compression):
        made = compression()
        if isinstance(made, (Operator, Codec)):
            return made
    raise ConfigurationError(
        f"compression={compression!r} is not a compressor; give an instance such as PowerSGD(rank=4), a class, a name "
        f"({', '.join(names())}) or a compressor of Horovod's API."
    )


def _by_name(text: str) -> Operator | Codec:
    """Return the compressor of a name, with settings if any: "powersgd:rank=2:alternate=true"."""
    name, *settings = text.split(":")
    compressor: Any = _find(name)
    if not settings:
        return compressor  # type: ignore[no-any-return]
    return _with_settings(compressor, dict(_setting(item, text) for item in settings), text)  # type: ignore[no-any-return]


def _with_settings(compressor: Any, changes: dict[str, Any], text: str) -> Any:
    """Return the compressor with some settings changed: its own, or else those of the codec that it carries."""
    own = {field.name for field in fields(compressor)}
    codec: Any = getattr(compressor, "codec", None) if "codec" in own else None
    inner = {field.name for field in fields(codec)} - own if codec is not None else set()
    for setting in changes:
        if setting not in own | inner:
            raise ConfigurationError(
                f"{text!r}: {type(compressor).__name__} has no setting {setting!r}; it has "
                f"{', '.join(sorted(own | inner))}."
            )
    for_codec = {name: value for name, value in changes.items() if name in inner}
    if for_codec:
        changes = {**{name: v for name, v in changes.items() if name in own}, "codec": replace(codec, **for_codec)}
    return replace(compressor, **changes)


def _setting(item: str, text: str) -> tuple[str, Any]:
    name, found, value = item.partition("=")
    if not (name and found):
        raise ConfigurationError(f"{text!r}: {item!r} is no setting; write name=value, as in powersgd:rank=2.")
    if value.casefold() in ("true", "false"):
        return name, value.casefold() == "true"
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _find(name: str) -> Operator | Codec:
    key = _key(name)
    entry_points = _entry_points()
    factory = _BUILT_IN.get(key) or _registered.get(key)
    if factory is None and key in entry_points:
        factory = entry_points[key].load()
    if factory is None:
        near = difflib.get_close_matches(key, names(), n=1, cutoff=0.0)
        raise UnknownCompressorError(
            f"No compressor is called {name!r}; did you mean {near[0]!r}? Known are {', '.join(names())}."
        )
    return resolve(factory)


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {_key(point.name): point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _key(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")
