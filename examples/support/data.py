"""Fashion-MNIST from its four idx files."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

Images = np.ndarray[Any, np.dtype[np.uint8]]


def folder() -> Path:
    """Where `make setup` puts the files, or what HVD_COMPRESS_DATA says."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = os.environ.get("HVD_COMPRESS_DATA")
    return Path(named or Path(cache) / "hvd_compress" / "fashion-mnist").expanduser()


def load(part: str) -> tuple[Images, Images]:
    """Return (images, labels) of a part, "train" or "t10k": uint8, n x 28 x 28 and n."""
    return _read(f"{part}-images-idx3-ubyte.gz"), _read(f"{part}-labels-idx1-ubyte.gz")


def _read(name: str) -> Images:
    path = folder() / name
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        sys.exit(f"{path} is missing: run `make setup`, or set HVD_COMPRESS_DATA to the folder that has it.")
    dimensions = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + dimensions.nbytes).reshape(dimensions)
