"""Compressors as text for a command line: "dense", "fp16", "powersgd:rank=2:power_iterations=2"."""

from __future__ import annotations

import argparse
import ast
from dataclasses import replace
from typing import Any

from hvd_compress import Codec, CompressionError, Operator, resolve


def compression(text: str) -> Operator | Codec:
    """Return the compressor that `text` names: a registered name, then settings, all joined by colons.

    Meant as `type=` of an argparse argument: what is wrong becomes one sentence.
    """
    name, *settings = text.split(":")
    try:
        compressor: Any = resolve("none" if name == "dense" else name)
        made: Operator | Codec = replace(compressor, **dict(_setting(item) for item in settings))
    except CompressionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return made


def _setting(item: str) -> tuple[str, Any]:
    name, found, value = item.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{item!r} is no setting; write name=value, as in powersgd:rank=2.")
    words = {"true": True, "false": False}
    try:
        return name, words[value] if value in words else ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
