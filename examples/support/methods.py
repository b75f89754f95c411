"""Compressors as text for a command line: "dense", "fp16", "powersgd:rank=2:power_iterations=2"."""

from __future__ import annotations

import argparse

from hvd_compress import Codec, CompressionError, Operator, resolve


def compression(text: str) -> Operator | Codec:
    """Return the compressor that `text` names; as `type=` of an argument, what is wrong becomes one sentence."""
    try:
        return resolve(text)
    except CompressionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
