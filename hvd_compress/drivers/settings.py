"""What a distributed optimizer was asked to do, besides the compressor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import final

from ..contract import Codec, Operator
from ..errors import ConfigurationError


@final
@dataclass(frozen=True)
class ExchangeSettings:
    """Settings of a distributed optimizer or tape that every rank must share.

    Args:
        average: mean over ranks; otherwise the sum.
        gradient_predivide_factor: gradients are divided by it before the exchange, and multiplied after it.
        sparse_as_dense: sparse gradients become dense for the exchange, and sparse again after it.
        bucket_bytes: gradients that travel together, at most about this many bytes.
        allow_larger: compress also where that sends more than a plain average.
        check_replicas_every: compare parameters across ranks every so many steps; 0: after the first one only.
    """

    average: bool
    gradient_predivide_factor: float
    sparse_as_dense: bool
    bucket_bytes: float
    check_replicas_every: int
    allow_larger: bool = False

    def __post_init__(self) -> None:
        if not self.gradient_predivide_factor > 0:
            raise ConfigurationError(
                f"gradient_predivide_factor={self.gradient_predivide_factor!r}: give a number greater than 0."
            )
        if self.gradient_predivide_factor != 1.0 and not self.average:
            raise ConfigurationError(
                f"gradient_predivide_factor={self.gradient_predivide_factor!r} splits an average; use op=hvd.Average."
            )
        if not self.bucket_bytes > 0:
            raise ConfigurationError(f"bucket_megabytes={self.bucket_bytes / 1e6!r}: give a number greater than 0.")
        if self.check_replicas_every < 0:
            raise ConfigurationError(
                f"check_replicas_every={self.check_replicas_every!r}: give a number of steps, or 0 for the first only."
            )

    def as_text(self) -> dict[str, object]:
        """Return the settings for the comparison between ranks."""
        return asdict(self)


def check_passes(passes: object) -> int:
    """Return the number of backward passes per step.

    Raises:
        ConfigurationError: it is not a whole number of at least 1.
    """
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
        raise ConfigurationError(f"backward_passes_per_step={passes!r}: give a whole number of at least 1.")
    return passes


def check_scales(compressor: Operator | Codec, settings: ExchangeSettings) -> None:
    """Raise if gradients are to be multiplied around a compressor whose update does not follow their size.

    Raises:
        ConfigurationError: they are.
    """
    follows = not compressor.votes if isinstance(compressor, Codec) else compressor.scales
    if follows or (settings.average and settings.gradient_predivide_factor == 1.0):
        return
    asked = (
        "op=hvd.Sum" if not settings.average else f"gradient_predivide_factor={settings.gradient_predivide_factor!r}"
    )
    raise ConfigurationError(
        f"{compressor!r} makes updates that do not grow with the gradient (votes, weight decay or clipping), so that "
        f"{asked} would change them; use op=hvd.Average and no factor."
    )
