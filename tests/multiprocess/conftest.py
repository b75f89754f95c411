"""One launch per launcher and number of ranks runs all the checks selected for it; every check is a test."""

from __future__ import annotations

import os

import pytest
from launching import Launch, Outcome, Results, run_checks
from workers import harness

# What a third rank makes different; `make test-3` runs everything with three.
WITH_THREE = (
    "training.identity_equals_stock[float64]",
    "training.full_rank_powersgd_equals_stock[float64]",
    "training.user_script_gives_the_same",
    "simulated.equals_the_simulator",
    "scalecom",
    "sparse_methods",
    "sign_methods.trains_as_in_the_simulator[block",
    "sign_methods.momentum",
    "quantised",
    "sketched",
    "spectral.equals_the_simulator",
    "hooks",
    "options.process_set",
    "options.two_process_sets",
    "options.no_gradient_on_one_rank",
    "options.op_sum",
    "sparse.a_rank_without_words",
    "agreement",
    "elements.means_are_right",
    "namespace.join",
)
# The same of the checks with TensorFlow.
TENSORFLOW_WITH_THREE = (
    "tensorflow_exchange.equals_the_simulator[powersgd]",
    "tensorflow_exchange.equals_the_simulator[scalecom-chunked",
    "tensorflow_exchange.equals_the_simulator[sparse-gtopk]",
    "tensorflow_exchange.equals_the_simulator[signs-block-sgdm-decay]",
    "tensorflow_exchange.process_set",
    "tensorflow_order",
)


def launches(session: str) -> list[Launch]:
    """Return the launches of a session; HVD_COMPRESS_TEST_RANKS=N makes every one of N ranks."""
    ranks = os.environ.get("HVD_COMPRESS_TEST_RANKS")
    if ranks is not None:
        if not ranks.isdigit() or int(ranks) < 1:
            raise pytest.UsageError(f"HVD_COMPRESS_TEST_RANKS={ranks!r}: give a number of ranks of at least 1.")
        launchers = ("mpi4py",) if session == "mpi4py" else ("gloo", "mpi")
        return [Launch(launcher, int(ranks), session=session) for launcher in launchers]
    if session == "mpi4py":
        return [Launch("mpi4py", ranks, session=session) for ranks in (2, 3)]
    with_three = {"horovod": WITH_THREE, "tensorflow": TENSORFLOW_WITH_THREE}[session]
    kinds: list[tuple[str, int, tuple[str, ...]]] = [("alone", 1, ()), ("gloo", 2, ()), ("mpi", 2, ())]
    return [Launch(*kind, session) for kind in (*kinds, ("gloo", 3, with_three))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not {"launch", "check"} <= set(metafunc.fixturenames):
        return
    session, prefixes = metafunc.module.SESSION, tuple(f"{name}." for name in metafunc.module.MODULES)
    pairs = [
        pytest.param(launch, check.name, id=f"{launch}-{check.name}")
        for launch in getattr(metafunc.module, "LAUNCHES", None) or launches(session)
        for check in harness.CHECKS.values()
        if check.name.startswith(prefixes)
        if launch.ranks >= check.min_ranks
        if not launch.parts or check.name.startswith(launch.parts)
        if not check.launchers or launch.launcher in check.launchers
    ]
    # Tests of one launch stay together, so that the launches follow one another.
    metafunc.parametrize(("launch", "check"), pairs, scope="session")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Outcomes by launch and check; the first one asked for runs all that are selected for its launch and module."""
    outcomes: dict[tuple[object, Launch], dict[str, Outcome]] = {}
    wanted: dict[tuple[object, Launch], list[str]] = {}
    modules = {}
    for item in request.session.items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if {"launch", "check"} <= set(given):
            wanted.setdefault((item.module, given["launch"]), []).append(given["check"])
            modules[(given["launch"], given["check"])] = item.module

    def outcome_of(launch: Launch, check: str) -> Outcome:
        module = modules[(launch, check)]
        key = (module, launch)
        if key not in outcomes:
            checks = {name: harness.CHECKS[name].seconds for name in wanted[key]}
            worker_modules = sorted({f"workers.{name.partition('.')[0]}" for name in checks})
            outcomes[key] = run_checks(launch, worker_modules, checks, tmp_path_factory.mktemp(str(launch)))
        return outcomes[key][check]

    return outcome_of
