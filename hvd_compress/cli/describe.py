"""`describe`: what a compressor would send, keep and pass over for a model's shapes."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from ..description import describe
from ..errors import ConfigurationError

NAME = "describe"

_CONVOLUTIONS = {"conv1": (64, 3, 7, 7), **{f"block{i}.conv": (64 * 2**i, 32 * 2**i, 3, 3) for i in range(1, 4)}}
EXAMPLES: dict[str, dict[str, tuple[int, ...]]] = {
    "cnn": {**_CONVOLUTIONS, "norm.weight": (512,), "norm.bias": (512,), "fc.weight": (1000, 512), "fc.bias": (1000,)},
    "lstm": {
        "encoder.weight": (28869, 650),
        **{
            f"rnn.{kind}_l{i}": (2600, 650) if kind.startswith("weight") else (2600,)
            for i in range(3)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        },
        "decoder.bias": (28869,),
    },
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the compressor, the shapes and the number of workers."""
    parser.add_argument("compressor", help="a name of `list`, with settings if any: powersgd:rank=2")
    parser.add_argument(
        "--shapes",
        default="cnn",
        help='a JSON file {"layer.weight": [64, 32], ...}, or a built-in example: ' + ", ".join(EXAMPLES),
    )
    parser.add_argument("--workers", type=int, default=2, help="number of workers (default 2)")
    parser.add_argument("--step", type=int, help="tell of this step; by default of one after all warm-ups")
    parser.add_argument("--allow-larger", action="store_true", help="compress also where that sends more")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    with warnings.catch_warnings():
        # What travels dense because it would grow is in the table, with the reason.
        warnings.simplefilter("ignore")
        described = describe(
            arguments.compressor,
            _shapes(arguments.shapes),
            arguments.workers,
            step=arguments.step,
            allow_larger=arguments.allow_larger,
        )
    print(described)
    return 0


def _shapes(text: str) -> Any:
    if text in EXAMPLES:
        return EXAMPLES[text]
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--shapes {text!r} is no built-in example ({', '.join(EXAMPLES)}) and cannot be read as JSON: {error}."
        ) from error
    if not isinstance(found, dict):
        raise ConfigurationError(f'--shapes {text!r} holds no object; write {{"layer.weight": [64, 32], ...}}.')
    return found
