"""Page: saved measurements as Markdown, every number of it from their file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from .growth import report as growth
from .growth.model import Fit
from .growth.point import Growth
from .micro import report as micro
from .micro.measure import Point
from .network import report as network
from .network.measured import Measured
from .network.sent import Sent
from .saved import rows_of
from .tables import as_markdown
from .targets import Target, target_table

_TITLES = {
    "micro": "What compressors cost by themselves",
    "growth": "What exchanges cost with more parameters, tensors and workers",
    "network": "Training steps on links of several rates",
}
_NOTES = {
    "micro": (
        "Copies are multiples of one copy of the same gradient in the same run; rows took turns. `codec:` rows are a "
        "codec by itself: encode and decode, no memory of errors and no collective. Sent: by one of two workers, or as "
        "many as there were."
    ),
    "growth": (
        "An exchange goes from gradients that are there to their means; rows took turns, Horovod's own with all of "
        "them: where memory is short for all rows at once, in groups, each with a table and Horovod's own in it. A "
        "median is of as many exchanges as the last column says. Workers share one machine: where there are more of "
        "them than cores, they take turns too. Dashed lines, and the table that says so, are a model and no "
        "measurements: seconds = l + messages a + bytes b. Messages wait for one another, and are those of all "
        "collectives that the description of the exchange names, in sequence, gradients that travel apart taken as "
        "one: among W workers 2 (W-1) an allreduce, W-1 an allgather or alltoall, ceil(log2 W) a broadcast, 1 a swap. "
        "Bytes are those that a worker sends. l, a and b are at least 0, and fitted to the measured times by least "
        "squares of relative errors; off by: the largest of these. Horovod's own is taken to fuse as our plain "
        "averages do, and its coordination is no term of "
        "its own."
    ),
    "network": (
        "One network namespace a worker on one machine, one thread each; rows took turns within one run. `alone` "
        "exchanges nothing: the floor. `one-reduction:4` is our transcription of the structure of epfml/powersgd. A "
        "median is of as many steps as the last column says. Link bytes are those that the interface of rank 0 sent "
        "during the step: in the tables of times with all that Horovod's coordination sends at its usual pace. In the "
        "tables of bytes, whose steps are none of those that are timed, it has cycles so long that it sends next to "
        "nothing, and nothing is subtracted: differs by link bytes / counted bytes - 1."
    ),
}


def page(report: dict[str, Any], source: str, picture: str | None = None) -> str:
    """Return the page.

    Args:
        report: as `read_report` returns it.
        source: name of the file that it is from, as the page is to link to it.
        picture: of it, likewise.

    Raises:
        ConfigurationError: rows lack a field.
    """
    suite, machine = report["suite"], report["machine"]
    verdicts = rows_of(report["targets"], Target)
    blocks = [
        f"# {_TITLES[suite]}",
        f"Made from [{source}]({source}) by `python -m hvd_compress bench-plot`, not typed. Measured by "
        f"`python -m hvd_compress {report['command']}` on {machine['cores']} cores ({machine['architecture']}), Python "
        f"{machine['python']}, load average before the run {machine['load_before']:.1f}.",
        _NOTES[suite],
        *([f"![{_TITLES[suite]}]({picture})"] if picture is not None else []),
        *(as_markdown(made) for made in (target_table(verdicts), *_tables(report))),
    ]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    if report["suite"] == "micro":
        settings = report["settings"]
        points = rows_of(report["points"], Point)
        yield micro.table(points, settings["library"], settings["device"], settings["dtype"], report["workers"])
    elif report["suite"] == "growth":
        for rows in growth.by_model(rows_of(report["measured"], Growth)):
            yield growth.table(rows)
        if report["predicted"]:
            fits = {point["row"]: Fit(**point["model"]) for point in report["predicted"]}
            yield growth.model_table(fits, report["predicted"])
    else:
        for measured in network.by_place(rows_of(report["measured"], Measured)):
            yield network.table(measured)
        for sent in network.by_place(rows_of(report["sent"], Sent)):
            yield network.sent_table(sent)
