"""Targets: met, not met or not measured, by the worst of the rows that can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_rows import growth, point, sent, step

from hvd_compress.bench.targets import Target, growth_targets, judge, micro_targets, network_targets

MB = 2**20


def of(targets: list[Target], start: str) -> Target:
    (found,) = [target for target in targets if target.what.startswith(start)]
    return found


def test_a_bound_is_kept_at_the_bound() -> None:
    assert judge("x", 2.0, [(2.0, "a"), (1.0, "b")]) == Target("x", 2.0, 2.0, "a")
    assert judge("x", 2.0, [(2.0, "a")]).verdict == "met"
    assert judge("x", 2.0, [(2.1, "a"), (1.0, "b")]).verdict == "not met"
    assert judge("x", 2.0, [(2.0, "a"), (3.0, "b")], least=True) == Target("x", 2.0, 2.0, "a", least=True)
    assert judge("x", 2.0, [(1.9, "a"), (3.0, "b")], least=True).verdict == "not met"
    assert judge("x", 2.0, []).verdict == "not measured"
    assert judge("x", 2.0, [(3.0, "a")]).as_json()["verdict"] == "not met"


COPIES = {
    "powersgd": ("error feedback", 10),
    "powersgd:rank=4": ("error feedback", 10),
    "codec:blocksign": ("signs", 12),
    "codec:qsgd": ("QSGD", 12),
    "codec:topk:selection=chunked": ("top-k", 12),
    "sketchedsgd": ("Sketched-SGD", 60),
    "scalecom": ("ScaleCom", 12),
}


@pytest.mark.parametrize("row", COPIES)
def test_copies(row: str) -> None:
    start, limit = COPIES[row]
    small, fine, slow = point(row, 8 * MB, 99.0), point(row, 16 * MB, limit), point(row, 64 * MB, limit + 0.5)
    assert of(micro_targets([small, fine], 1), start).verdict == "met"
    worst = of(micro_targets([small, fine, slow], 1), start)
    assert (worst.measured, worst.at, worst.verdict) == (limit + 0.5, f"{row}, 64M", "not met")
    assert of(micro_targets([small], 1), start).verdict == "not measured"
    # With a network it is no cost of the compressor's alone.
    assert of(micro_targets([fine], 2), start).verdict == "not measured"


@pytest.mark.parametrize(
    "row",
    ["powersgd:rank=1", "powersgd:alternate=true", "codec:topk", "codec:topk:ratio=0.1:selection=chunked", "qsgd"],
)
def test_other_rows_have_no_bound_on_copies(row: str) -> None:
    found = micro_targets([point(row, 16 * MB, 99.0)], 1)
    assert all(target.verdict == "not measured" for target in found if "copies" in target.what)


def test_state() -> None:
    found = [point("powersgd", MB, 1.0, state_bytes=int(1.05 * MB)), point("sketchedsgd", MB, 1.0, state_bytes=3 * MB)]
    assert of(micro_targets(found, 1), "PowerSGD: state").verdict == "met"
    found.append(point("powersgd:alternate=true", MB, 1.0, state_bytes=int(1.06 * MB)))
    assert of(micro_targets(found, 1), "PowerSGD: state").at == "powersgd:alternate=true, 1M"


def test_many_tensors_and_plain_averages() -> None:
    rows = [
        growth("horovod", "tensors", 2000, 1.0),
        growth("identity", "tensors", 2000, 1.05),
        growth("powersgd:rank=4", "tensors", 2000, 2.5),
    ]
    targets = growth_targets(rows)
    assert of(targets, "2,000 tensors of 4 KB: identity").verdict == "met"
    assert of(targets, "2,000 tensors of 4 KB: powersgd:rank=4") == Target(
        "2,000 tensors of 4 KB: powersgd:rank=4 / Horovod dense",
        2.0,
        2.5,
        "2,048,000 parameters in 2000 tensors, 2 workers",
    )
    assert of(targets, "plain averages").verdict == "met"
    other = [growth("horovod", "parameters", 10, 1.0), growth("identity", "parameters", 10, 1.1)]
    assert of(growth_targets([*rows, *other]), "plain averages").measured == pytest.approx(1.1)


@pytest.mark.parametrize("workers", [1, 4])
def test_exchanges_are_compared_between_two_workers(workers: int) -> None:
    """Alone, Horovod exchanges nothing; and where workers take turns, nothing is known of theirs."""
    rows = [growth(row, "tensors", 2000, 9.0**i, workers) for i, row in enumerate(("horovod", "identity"))]
    targets = growth_targets(rows)
    assert of(targets, "2,000 tensors").verdict == "not measured"
    assert of(targets, "plain averages").verdict == "not measured"


def test_collectives_are_counted_by_the_bucket() -> None:
    fine = replace(growth("scalecom", "parameters", 10, 1.0), collectives=6.0, buckets=2)
    many = replace(growth("distefblocksgd", "parameters", 10, 1.0), collectives=4.0)
    free = replace(growth("gtopk", "parameters", 10, 1.0), collectives=9.0)
    assert of(growth_targets([fine, free]), "collectives").verdict == "met"
    assert of(growth_targets([fine, many]), "collectives").measured == 4.0
    assert of(growth_targets([free]), "collectives").verdict == "not measured"
    assert (
        of(network_targets([replace(step("ours:scalecom", 1.0), collectives=4.0, buckets=1)], []), "coll").measured
        == 4.0
    )


RANK_4, ALTERNATING = "ours:powersgd:rank=4", "ours:powersgd:alternate=true"
RUN = [step("alone", 0.1), step("horovod", 0.6), step("ddp:powersgd4", 0.2), step("one-reduction:4", 0.13)]


def test_steps_of_the_lstm() -> None:
    targets = network_targets([*RUN, step(RANK_4, 0.145), step(ALTERNATING, 0.125)], [])
    values = {
        "PowerSGD rank 4: added": 0.45,
        "PowerSGD rank 4: step": 1.45,
        "PowerSGD rank 4: Horovod": 0.6 / 0.145,
        "PowerSGD rank 4, alternating": 0.125 / 0.13,
    }
    for start, value in values.items():
        assert of(targets, start).measured == pytest.approx(value)
        assert of(targets, start).verdict == "met"
    slow = network_targets([*RUN, step(RANK_4, 0.16), step(ALTERNATING, 0.14)], [])
    assert all(of(slow, start).verdict == "not met" for start in values)


def test_rows_that_are_missing_or_elsewhere_tell_nothing() -> None:
    starts = ("PowerSGD rank 4: added", "PowerSGD rank 4: step", "PowerSGD rank 4: Horovod", "PowerSGD rank 4, alt")
    rows = [*RUN, step(RANK_4, 0.15), step(ALTERNATING, 0.12)]
    for elsewhere in ({"workload": "resnet"}, {"rate": "10gbit"}, {"workers": 4}):
        targets = network_targets([replace(row, **elsewhere) for row in rows], [])
        assert all(of(targets, start).verdict == "not measured" for start in starts)
    assert all(of(network_targets(rows[4:], []), start).verdict == "not measured" for start in starts)
    # A hook that adds nothing is no yardstick.
    quick = [replace(row, seconds=0.1) if row.row == "ddp:powersgd4" else row for row in rows]
    assert of(network_targets(quick, []), starts[0]).verdict == "not measured"


def test_bytes_may_differ_by_a_share_and_a_page() -> None:
    def judged(link: float, metered: float) -> Target:
        rows = [sent("alone", 2000.0, None), sent("horovod", 9e6, None), sent(RANK_4, link, metered)]
        return of(network_targets([], rows), "(bytes of the link")

    assert judged(1e6 + 4096 + 50_000, 1e6).verdict == "met"
    assert judged(1e6 + 4096 + 50_001, 1e6).verdict == "not met"
    assert judged(1e6 - 4096 - 50_001, 1e6).verdict == "not met"  # too few are wrong as well
    assert judged(1e6 + 4096, 1e6).measured == 0.0
    fine, worse = sent(RANK_4, 1e6, 1e6), sent(ALTERNATING, 2e6, 1e6, workers=4)
    assert of(network_targets([], [worse, fine]), "(bytes of the link").at == f"{ALTERNATING}, lstm, 1gbit, 4 workers"
    assert of(network_targets(RUN, []), "(bytes of the link").verdict == "not measured"


def test_state_and_plain_averages_in_training() -> None:
    rows = [step("horovod", 1.0), step("ours:identity", 1.05), step(RANK_4, 1.0)]
    assert of(network_targets(rows, []), "plain averages").verdict == "met"
    assert of(network_targets(rows, []), "PowerSGD: state").verdict == "met"
    rows = [step("horovod", 1.0), step("ours:none", 1.06), replace(rows[2], state_bytes=106, gradient_bytes=100)]
    assert of(network_targets(rows, []), "plain averages").verdict == "not met"
    assert of(network_targets(rows, []), "PowerSGD: state").verdict == "not met"
