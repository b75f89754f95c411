"""The command line that the training scripts share, and what they leave when they end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .methods import compression


def arguments(description: str) -> argparse.Namespace:
    """Return what a training script was asked to do."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--method", type=compression, default="dense", help="dense, fp16, powersgd:rank=2, ...")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=0, help="this many steps instead of whole epochs")
    parser.add_argument("--batch-size", type=int, default=64, help="images per worker and step")
    parser.add_argument("--lr", type=float, help="the highest learning rate of the schedule (default: the method's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    return parser.parse_args()


def finish(result: dict[str, Any], path: Path | None) -> None:
    """Say what a training script has found, and write it down where it is wanted."""
    sent = f"{result['bytes_per_step']:,} bytes a step"
    print(f"test accuracy {result['accuracy']:.2%}, {sent}, {result['milliseconds']['step']:.1f} ms a step")
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")
