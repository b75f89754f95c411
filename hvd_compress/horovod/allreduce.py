"""`python -m hvd_compress.horovod.allreduce torch`: the smallest program that shows that workers reach each other."""

from __future__ import annotations

import sys
from typing import Any

from .extension import load

SUCCESS = "hvd_compress allreduce of {size} workers is right"


def main(framework: str) -> None:
    """Add up rank + 1 over all workers; rank 0 prints `SUCCESS`.

    Args:
        framework: "torch" or "tensorflow".

    Raises:
        RuntimeError: the sum is wrong.
    """
    horovod: Any = load(framework)
    horovod.init()
    size = horovod.size()
    total = float(horovod.allreduce(_number(framework, horovod.rank() + 1.0), op=horovod.Sum, name="check")[0])
    if total != size * (size + 1) / 2:
        raise RuntimeError(f"The sum of 1 to {size} over {size} workers came out as {total}; do not train with this.")
    if horovod.rank() == 0:
        print(SUCCESS.format(size=size), flush=True)
    horovod.shutdown()


def _number(framework: str, value: float) -> Any:
    if framework == "torch":
        import torch

        return torch.tensor([value])
    import tensorflow as tf

    return tf.constant([value])


if __name__ == "__main__":
    main(sys.argv[1])
