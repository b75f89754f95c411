"""What compression costs a step in TensorFlow, against torch: the same shapes, in one run, in turn.

- `python examples/framework_overhead.py`: one process and no network, so that only compression is left
- `horovodrun -np 2 python examples/framework_overhead.py`: two workers
- `python examples/framework_overhead.py --output docs`: refreshes the documentation

The gradients are those of an LSTM language model of 13.3 million parameters. Timed is the exchange of gradients that
are there already, from the call to the means: `optimizer.synchronize()` in torch, in TensorFlow a `tf.function` with
the same exchange in it. One thread each; the two take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import horovod.tensorflow as tensorflow_horovod
import numpy as np
import tensorflow as tf
import torch
from support.methods import compression

import hvd_compress.torch as hvd
from hvd_compress.tensorflow.variable_exchange import VariableExchange

# An embedding, two LSTM layers of 650 and an output layer, as torch lays them out.
MODEL = {
    "embedding": (5000, 650),
    "lstm1.input": (2600, 650),
    "lstm1.hidden": (2600, 650),
    "lstm1.bias": (2600,),
    "lstm2.input": (2600, 650),
    "lstm2.hidden": (2600, 650),
    "lstm2.bias": (2600,),
    "output": (5000, 650),
    "output.bias": (5000,),
}

Timed = Callable[[], None]


def gradients() -> dict[str, np.ndarray]:
    """Return this worker's gradients."""
    generator = np.random.default_rng(hvd.rank())
    return {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in MODEL.items()}


def torch_exchange(method: str) -> Timed:
    """Return a function that exchanges gradients by torch."""
    named = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in MODEL.items()}
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(named.values(), lr=0.1), named.items(), compression(method))
    for name, gradient in gradients().items():
        named[name].grad = torch.tensor(gradient)
    return optimizer.synchronize


def tensorflow_exchange(method: str) -> Timed:
    """Return a function that exchanges the same gradients, kernels turned as TensorFlow has them, by TensorFlow."""
    given = [tf.constant(np.ascontiguousarray(gradient.T)) for gradient in gradients().values()]
    variables = [tf.Variable(tf.zeros_like(gradient), name=name) for name, gradient in zip(MODEL, given, strict=True)]
    exchange = VariableExchange(compression(method))

    @tf.function
    def step(own: list[tf.Tensor]) -> list[tf.Tensor]:
        return exchange(own, variables, learning_rate=0.1)

    def exchange_all() -> None:
        step(given)  # returns once every mean is computed

    return exchange_all


def measure(methods: list[str], repeats: int) -> list[dict[str, Any]]:
    """Return the median milliseconds of both, by method."""
    results = []
    for method in methods:
        timed = {"torch": torch_exchange(method), "tensorflow": tensorflow_exchange(method)}
        times: dict[str, list[float]] = {framework: [] for framework in timed}
        for repeat in range(repeats + 3):
            for framework, exchange in timed.items():
                started = time.perf_counter()
                exchange()
                if repeat >= 3:  # the first ones make plans, variables and graphs
                    times[framework].append(1e3 * (time.perf_counter() - started))
        medians = {framework: statistics.median(found) for framework, found in times.items()}
        spread = {framework: [min(found), max(found)] for framework, found in times.items()}
        results.append({"method": method, "milliseconds": medians, "range": spread})
    return results


def markdown(report: dict[str, Any]) -> str:
    """Return the table, with what it says."""
    lines = ["| method | torch ms | TensorFlow ms | TensorFlow / torch |", "| --- | ---: | ---: | ---: |"]
    for result in report["results"]:
        ms = result["milliseconds"]
        ratio = ms["tensorflow"] / ms["torch"]
        lines.append(f"| {result['method']} | {ms['torch']:.1f} | {ms['tensorflow']:.1f} | {ratio:.2f} |")
    table = "\n".join(lines)
    return (
        f"# What compression costs a step, by framework\n\n{table}\n\n"
        f"{report['workers']} worker(s), {report['parameters']:,} parameters of an LSTM language model, one thread, "
        f"medians of {report['repeats']} exchanges, the frameworks in turn; load average before the run "
        f"{report['load_before']:.1f}. torch {report['torch']}, TensorFlow {report['tensorflow']}. Made by "
        "`python examples/framework_overhead.py --output docs`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="powersgd:rank=4", help="names as in the demo, separated by commas")
    parser.add_argument("--repeats", type=int, default=20, help="timed exchanges of each")
    parser.add_argument("--output", type=Path, help="folder for framework_overhead.json and framework_overhead.md")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    hvd.init()
    tensorflow_horovod.init()
    report = {
        "results": measure(args.method.split(","), args.repeats),
        "workers": hvd.size(),
        "parameters": sum(int(np.prod(shape)) for shape in MODEL.values()),
        "repeats": args.repeats,
        "load_before": load,
        "torch": torch.__version__,
        "tensorflow": tf.__version__,
    }
    if hvd.rank() == 0:
        print(markdown(report))
        if args.output is not None:
            (args.output / "framework_overhead.json").write_text(json.dumps(report, indent=2) + "\n")
            (args.output / "framework_overhead.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
