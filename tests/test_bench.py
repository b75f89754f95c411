"""`bench`, `bench-growth` and `bench-network`: what a point says, links that are as slow as asked, and the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_compress import ConfigurationError, describe
from hvd_compress.bench.growth.groups import make_groups
from hvd_compress.bench.growth.model import fit
from hvd_compress.bench.growth.settings import GrowthSettings
from hvd_compress.bench.growth.workers import cost
from hvd_compress.bench.micro import MicroSettings, measure
from hvd_compress.bench.micro.measure import matrix_shape
from hvd_compress.bench.micro.report import as_json
from hvd_compress.bench.micro.world import NumPyWorld
from hvd_compress.bench.network.leftovers import free_subnet, owned_by, remove_leftovers
from hvd_compress.bench.network.namespaces import Network
from hvd_compress.bench.sizes import as_text, parse_size, size_range
from hvd_compress.bench.turns import Budget
from hvd_compress.registry import different_names

LIMIT = 240.0


@pytest.mark.parametrize(
    ("text", "nbytes"), [("512", 512), ("4K", 4096), ("4kb", 4096), ("256M", 2**28), ("1G", 2**30)]
)
def test_sizes_are_read(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes
    assert parse_size(as_text(nbytes)) == nbytes


@pytest.mark.parametrize("text", ["", "K", "0", "-4K", "4T", "4.5M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Size"):
        parse_size(text)


def test_ranges_go_as_far_as_the_largest() -> None:
    assert size_range(4, 64, 4) == (4, 16, 64)
    assert size_range(4, 63, 4) == (4, 16)
    for wrong in ((4, 64, 1), (64, 4, 2)):
        with pytest.raises(ConfigurationError, match="factor"):
            size_range(*wrong)


@pytest.mark.parametrize("elements", [1, 2, 3, 1000, 2**20])
def test_matrices_have_as_many_elements_or_one_row_less(elements: int) -> None:
    rows, columns = matrix_shape(elements)
    assert elements - rows < rows * columns <= elements and rows <= columns


SETTINGS = MicroSettings(("identity", "powersgd:rank=2", "qsgd"), (2048, 8192), library="numpy", repeats=3, warmup=1)


@pytest.mark.parametrize("name", ["library", "device", "dtype"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}='other'"):
        replace(SETTINGS, **{name: "other"})
    with pytest.raises(ConfigurationError, match="repeats=0"):
        replace(SETTINGS, repeats=0)
    with pytest.raises(ConfigurationError, match="NumPy has the CPU only"):
        replace(SETTINGS, device="cuda")


def test_a_point_for_every_size_and_compressor() -> None:
    """Stages add up, bytes are those of `describe`, and what loses nothing has no error."""
    points = list(measure(SETTINGS, NumPyWorld()))
    assert [(p.nbytes, p.compressor) for p in points] == [(n, c) for n in SETTINGS.sizes for c in SETTINGS.compressors]
    for point in points:
        assert point.encode is not None and point.collective is not None and point.decode is not None
        assert 0 < point.fastest <= point.total <= point.slowest
        # Medians of parts and of wholes are not of the same exchange, but lie among all of them.
        assert max(point.encode, point.collective, point.decode) <= point.slowest
        assert point.copies == pytest.approx(point.total / point.copy)
        described = describe(point.compressor, {"x": matrix_shape(point.nbytes // 4)}, 2, allow_larger=True)
        assert (point.wire_bytes, point.ratio) == (described.wire_bytes, described.ratio)
        assert (point.relative_error < 1e-6) == (point.compressor == "identity")
        assert point.relative_error < 4.0
    saved = json.loads(json.dumps(as_json(points, SETTINGS, 1, 0.0)))
    assert saved["settings"]["sizes"] == [2048, 8192] and len(saved["points"]) == len(points)
    assert saved["points"][0]["copies"] == points[0].copies


def _bench(
    tmp_path: Path, *arguments: str, launcher: tuple[str, ...] = (), command: str = "bench"
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "OMPI_", "PMI"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if not launcher:
        environment |= {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}
    words = [*launcher, sys.executable, "-m", "hvd_compress", command, *arguments]
    return subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
    )


COMMANDS = {
    "torch": ((), "torch", 1),
    "torch-2": (("horovodrun", "-np", "2", "--gloo"), "torch", 2),
    "tensorflow-2": (("horovodrun", "-np", "2", "--gloo"), "tensorflow", 2),
    "numpy-2": (("mpirun", "--oversubscribe", "-np", "2"), "numpy", 2),
}


@pytest.mark.multiprocess
@pytest.mark.timeout(LIMIT + 30)
@pytest.mark.parametrize("case", COMMANDS)
def test_the_command(case: str, tmp_path: Path) -> None:
    launcher, library, workers = COMMANDS[case]
    options = [
        "--compressors",
        "identity,powersgd:rank=1,efsignsgd,codec:blocksign",
        "-b",
        "1K",
        "-e",
        "4K",
        "-f",
        "4",
        "-n",
        "2",
    ]
    done = _bench(tmp_path, *options, "--library", library, "--json", "found.json", launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "powersgd:rank=1" in done.stdout and f"{workers} worker(s)" in done.stdout
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["workers"] == workers and len(saved["points"]) == 8
    for point in saved["points"]:
        alone = point["compressor"].startswith("codec:")
        # A graph is run as a whole; a codec by itself is two of them.
        assert (point["encode"] is None) == (library == "tensorflow" and not alone)
        assert (point["collective"] is None) == (library == "tensorflow" or alone)
        # Of two workers' gradients, which are not alike, none but the plain average is exact.
        assert (point["relative_error"] < 1e-6) == (point["compressor"] == "identity"), point
        assert np.isfinite(point["copies"]) and point["copies"] > 0


@pytest.mark.slow
def test_every_compressor_is_measured_where_all_are_asked_for(tmp_path: Path) -> None:
    options = ["--compressors", "all,codec:qsgd", "-b", "64K", "-e", "64K", "-n", "2", "--json", "found.json"]
    done = _bench(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "found.json").read_text())
    assert [point["compressor"] for point in saved["points"]] == [*different_names(), "codec:qsgd"]
    assert "--compressors all,codec:qsgd" in saved["command"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--compressors", "nonsense"), "nonsense"),
        (("-b", "4T"), "4T"),
        (("-f", "1"), "factor"),
        (("--library", "numpy", "--device", "cuda"), "NumPy has the CPU only"),
        (("-n", "0"), "repeats=0"),
        (("--compressors", "codec:powersgd"), "PowerSGD is no codec"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = _bench(tmp_path, *(("--library", "numpy") if "--library" not in options else ()), *options)
    assert done.returncode == 2 and told in done.stderr, done.stderr


# --- growth ---


def test_a_fit_finds_the_model_that_made_the_points() -> None:
    for local, latency, byte in ((3e-3, 2e-4, 1e-9), (0.0, 2e-4, 1e-9), (1e-3, 0.0, 0.0)):
        points = [
            (steps, nbytes, local + latency * steps + byte * nbytes)
            for steps, nbytes in ((2.0, 1e6), (6.0, 1.5e6), (14.0, 1.75e6), (30.0, 1e3))
        ]
        found = fit(points)
        assert (found.local, found.latency, found.byte) == pytest.approx((local, latency, byte), rel=1e-6, abs=1e-15)
        assert found.error < 1e-9
        assert found.seconds(62.0, 2e6) == pytest.approx(local + 62 * latency + 2e6 * byte)


def test_a_fit_has_no_negative_part() -> None:
    found = fit([(2.0, 1e6, 3e-3), (6.0, 1e6, 2e-3), (14.0, 1e6, 1e-3)])
    assert min(found.local, found.latency, found.byte) >= 0.0


GROWTH = GrowthSettings(("identity", "powersgd:rank=2"), (10**5,), (), Budget(2, 3, 1.0))


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_messages_are_those_of_all_collectives(workers: int) -> None:
    """Of a ring: W - 1 to the first full sum of a part, and W - 1 until every rank has all parts."""
    around = workers - 1
    shapes = GROWTH.layers(10**5)
    assert len(shapes) == 10 and set(shapes.values()) == {(100, 100)}
    messages = {
        "identity": 2 * around,
        "horovod": 2 * around,
        "powersgd:rank=2": 2 * 2 * around,
        "powersgd:rank=2:alternate=true": 2 * around,
        "efsignsgd": around,
    }
    for row, expected in messages.items():
        described = describe("identity" if row == "horovod" else row, shapes, workers)
        assert cost(GROWTH, row, 10**5, workers) == (expected, described.wire_bytes), row


def test_gradients_beyond_a_bucket_are_more_collectives() -> None:
    # A bucket of 40 KB closes with the first matrix of 100 x 100.
    many = replace(GROWTH, bucket_megabytes=0.04)
    assert cost(many, "identity", 10**5, 2) == (2 * 10, cost(GROWTH, "identity", 10**5, 2)[1])


def test_rows_that_memory_is_short_for_are_measured_in_groups() -> None:
    names, shapes, gradient = ("powersgd:rank=2", "identity", "powersgd:rank=4"), {"w": (1000, 1000)}, 4 * 10**6
    kept = {name: gradient + describe(name, shapes, 2).state_bytes for name in names}
    assert kept["powersgd:rank=4"] > kept["powersgd:rank=2"] > 2 * gradient > kept["identity"] == gradient

    def grouped(*together: str) -> list[tuple[str, ...]]:
        """Return the groups where there is just room for these."""
        needed = 5 * gradient + sum(kept[name] for name in together)
        return make_groups(names, shapes, 2, int(needed / 0.7) + 2)

    assert grouped(*names) == [names]
    assert grouped("powersgd:rank=2", "identity") == [names[:2], names[2:]]
    assert grouped("powersgd:rank=4") == [names[:1], names[1:2], names[2:]]
    with pytest.raises(ConfigurationError, match="powersgd:rank=4: 1,000,000 parameters need"):
        grouped("powersgd:rank=2")
    assert make_groups((), shapes, 2, 10**9) == [()]  # Horovod's own alone


def test_growth_settings_out_of_range_are_refused() -> None:
    for wrong in ({"parameters": (0,)}, {"parameters": (), "tensors": ()}, {"matrices": 0}, {"tensor_bytes": 3}):
        with pytest.raises(ConfigurationError, match="give"):
            replace(GROWTH, **wrong)


@pytest.mark.multiprocess
@pytest.mark.timeout(LIMIT + 30)
def test_the_growth_command(tmp_path: Path) -> None:
    options = ["--compressors", "identity,powersgd:rank=1", "--parameters", "10000", "--tensors", "20"]
    done = _bench(tmp_path, *options, "--workers", "2", "-n", "2", "--json", "found.json", command="bench-growth")
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "found.json").read_text())
    shapes = [
        (row["grown"], row["tensors"], row["workers"]) for row in saved["measured"] if row["row"] == "powersgd:rank=1"
    ]
    # With one worker Horovod exchanges nothing: the command starts two itself.
    assert shapes == [("parameters", 10, 2), ("tensors", 20, 2), ("workers", 10, 2)]
    assert saved["predicted"] == []  # one number of workers makes no model
    assert saved["command"].startswith("bench-growth --compressors identity,") and "found" not in saved["command"]
    verdicts = {target["what"].partition(":")[0]: target["verdict"] for target in saved["targets"]}
    assert verdicts["2,000 tensors of 4 KB"] == "not measured"
    assert verdicts["collectives a step and bucket"] == "met" and "collectives a step and bucket" in done.stdout
    assert "2,000 tensors" not in done.stdout  # of which these rows say nothing
    for row in saved["measured"]:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert (row["exchanges"], row["group"]) == (2, 0)
        # However many layers there are: one collective for small tensors, two for factors.
        assert (
            row["collectives"]
            == {"horovod": None, "identity": 1, "powersgd:rank=1": 1 + (row["tensors"] == 10)}[row["row"]]
        )


# --- shaped links ---


def _possible() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("tc") is not None


def _left() -> str:
    """Return what networks of this process have left behind."""
    found = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True).stdout
    found += subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    own = owned_by(os.getpid())
    return "\n".join(line for line in found.splitlines() if line.startswith((f"{own}w", f"{own}br")))


SENDER = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 5001), timeout=30) as link:
    began = time.perf_counter()
    link.sendall(bytes(int(sys.argv[2])))
    link.shutdown(socket.SHUT_WR)
    link.recv(1)
    print(time.perf_counter() - began)
"""
RECEIVER = """
import socket, sys
with socket.create_server((sys.argv[1], 5001)) as server:
    print("ready", flush=True)
    link = server.accept()[0]
    while link.recv(65536):
        pass
    link.sendall(b"x")
"""


@pytest.mark.timeout(120)
def test_links_are_as_slow_as_asked_and_count_what_is_sent() -> None:
    if not _possible():
        with pytest.raises(ConfigurationError, match=r"root|iproute2"):
            Network(2, None)
        return
    nbytes, rate = 2_000_000, 16e6
    with Network(2, "16mbit") as network:
        assert (
            network.interface(0)
            in subprocess.run(network.command(0, ["ip", "-brief", "link"]), capture_output=True, text=True).stdout
        )
        before = network.sent_bytes()
        receiver = subprocess.Popen(
            network.command(1, [sys.executable, "-c", RECEIVER, network.addresses[1]]), stdout=subprocess.PIPE
        )
        try:
            assert receiver.stdout is not None and receiver.stdout.readline() == b"ready\n"
            sender = network.command(0, [sys.executable, "-c", SENDER, network.addresses[1], str(nbytes)])
            seconds = float(subprocess.run(sender, capture_output=True, text=True, timeout=60, check=True).stdout)
            receiver.wait(30)
        finally:
            receiver.kill()
            receiver.communicate()
        sent, answered = (now - then for now, then in zip(network.sent_bytes(), before, strict=True))
        # No link is faster than it is, but for what it may send at once.
        assert seconds >= 8 * (nbytes - 2**19) / rate
        assert nbytes <= sent <= 1.1 * nbytes + 4096 and answered < 0.1 * nbytes
    assert _left() == ""


def test_nothing_is_left_where_something_fails() -> None:
    if not _possible():
        pytest.skip("networks are made by root only; that they are refused is another test's")
    with pytest.raises(ZeroDivisionError), Network(1, None):
        1 / 0  # noqa: B018
    with pytest.raises(ConfigurationError, match="nonsense"), Network(1, "nonsense"):
        pass
    assert _left() == ""


ABANDON = """
import os, sys
from hvd_compress.bench.network.namespaces import Network
network = Network(2, "1gbit").__enter__()
print(network.host_address, flush=True)
os._exit(1)
"""


def test_what_a_killed_run_left_is_removed_and_addresses_of_others_are_not_used() -> None:
    if not _possible():
        pytest.skip("networks are made by root only; that they are refused is another test's")
    abandon = subprocess.Popen([sys.executable, "-c", ABANDON], stdout=subprocess.PIPE, text=True)
    address = abandon.communicate(timeout=30)[0].strip()
    assert address and f" {address}/" in subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True).stdout
    with Network(1, None) as network:
        found = subprocess.run(["ip", "-brief", "addr"], capture_output=True, text=True).stdout
        found += subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
        assert f"{owned_by(abandon.pid)}w" not in found and f"{owned_by(os.getpid())}w0" in found
        assert not list(Path("/etc/netns").glob(f"{owned_by(abandon.pid)}w*"))
        # This process is alive: what it has made stays, and its addresses are taken.
        remove_leftovers()
        assert not network.host_address.startswith(f"{free_subnet(os.getpid())}.")
        assert f"{owned_by(os.getpid())}w0" in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert _left() == ""


@pytest.mark.multiprocess
@pytest.mark.timeout(LIMIT)
def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    if not _possible():
        pytest.skip("networks are made by root only; that they are refused is another test's")
    words = [sys.executable, "-m", "hvd_compress", "bench-network", "--models", "resnet", "--rates", "unshaped"]
    ended = subprocess.Popen([*words, "--workers", "2"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    namespace = f"{owned_by(ended.pid)}w1"

    def pids() -> list[str]:
        return subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()

    try:
        while ended.poll() is None and not pids():
            time.sleep(0.1)
        workers = pids()
        ended.terminate()
        assert ended.wait(60) == 128 + signal.SIGTERM and workers
    finally:
        ended.kill()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert (
        not Path("/etc/netns", namespace).exists() and not Path("/sys/class/net", f"{owned_by(ended.pid)}br").exists()
    )


WORKERS = {
    "failing": ("Worker 1 ended with exit status 3", "told why"),
    "waiting": ("did not end within 8 s", "in where_it_waits"),
}
# Horovod's rendezvous server leaves its socket to the end of the process.
RUN_WORKERS = """
import pathlib, sys
from hvd_compress import ConfigurationError
from hvd_compress.bench.network.launching import run_workers
from hvd_compress.bench.network.namespaces import Network
program = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
try:
    with Network(2, None) as network:
        run_workers(network, program, pathlib.Path(), 30.0 if sys.argv[2] == "failing" else 8.0)
except ConfigurationError as error:
    print(error)
"""
WORKER = """
import faulthandler, os, sys, time
def where_it_waits():
    time.sleep(600)
faulthandler.enable()
if sys.argv[1] == "failing" and os.environ["HOROVOD_RANK"] == "1":
    print("told why")
    sys.exit(3)
where_it_waits()
"""


@pytest.mark.parametrize("case", WORKERS)
def test_workers_that_fail_or_wait_for_ever_are_told(case: str, tmp_path: Path) -> None:
    """A worker waits for another in either case: the message says which of them failed, or where all are."""
    if not _possible():
        pytest.skip("networks are made by root only; that they are refused is another test's")
    words = [sys.executable, "-c", RUN_WORKERS, WORKER, case]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert all(text in done.stdout for text in WORKERS[case]), done.stdout + done.stderr


def test_networks_that_cannot_be_made_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="workers=0"):
        Network(0, None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/sbin/{tool}")
    with pytest.raises(ConfigurationError, match="root"):
        Network(2, None)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(ConfigurationError, match="ip and tc not found"):
        Network(2, None)


@pytest.mark.multiprocess
@pytest.mark.timeout(LIMIT + 30)
def test_the_network_command(tmp_path: Path) -> None:
    peers = ["horovod:fp16", "ddp", "ddp:bf16", "one-reduction:4"]
    rows = ["--peers", ",".join(peers), "--compressors", "powersgd:rank=1"]
    size = ["--models", "resnet", "--rates", "unshaped", "--workers", "2", "-n", "2", "-w", "3", "--json", "found.json"]
    # Workers that hang say where, before this test ends them.
    size += ["--limit", str(LIMIT / 2 - 10)]
    done = _bench(tmp_path, *rows, *size, command="bench-network")
    if not _possible():
        assert done.returncode == 2 and ("root" in done.stderr or "iproute2" in done.stderr)
        return
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "found.json").read_text())
    measured = {row["row"]: row for row in saved["measured"]}
    assert list(measured) == ["alone", *peers, "ours:powersgd:rank=1"]
    ours, gradient = measured["ours:powersgd:rank=1"], 4 * 2_796_650
    assert all(0 < row["lower"] <= row["seconds"] <= row["upper"] for row in measured.values())
    sent = {row["row"]: row for row in saved["sent"]}
    assert gradient <= sent["ddp"]["link_bytes"] <= 1.2 * gradient
    assert gradient / 2 <= sent["horovod:fp16"]["link_bytes"] <= 0.7 * gradient
    assert gradient / 2 <= sent["ddp:bf16"]["link_bytes"] <= 0.7 * gradient
    assert sent["one-reduction:4"]["link_bytes"] < gradient / 20
    assert list(sent) == list(measured) and {row["steps"] for row in sent.values()} == {4}
    assert {row["steps"] for row in measured.values()} == {2}
    counted = sent["ours:powersgd:rank=1"]
    # What leaves the interface is what the exchange counts, with headers: nothing hidden, and nothing subtracted.
    assert counted["metered_bytes"] == ours["metered_bytes"] < counted["link_bytes"]
    assert counted["link_bytes"] <= 1.05 * counted["metered_bytes"] + 16_384
    assert counted["difference"] == pytest.approx(counted["link_bytes"] / counted["metered_bytes"] - 1)
    assert sent["alone"]["link_bytes"] < 16_384 and sent["alone"]["difference"] is None
    assert min(ours[part] for part in ("compute_seconds", "compress_seconds", "wait_seconds")) > 0
    assert measured["ddp"]["compress_seconds"] is None
    assert ours["collectives"] == 2 * ours["buckets"] and ours["state_bytes"] > 0.9 * ours["gradient_bytes"]
    targets = {target["what"]: target for target in saved["targets"]}
    assert targets["PowerSGD rank 4: step / floor"]["verdict"] == "not measured"  # of an LSTM, that is
    assert targets["PowerSGD: state / gradient"]["verdict"] == "met" and "PowerSGD: state / gradient" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--models", "vgg"), "vgg"),
        (("--workers", "1"), "workers=(1,)"),
        (("-w", "1"), "warmup=1"),
        (("-w", "2"), "warmup=2"),
        (("--seconds", "0"), "seconds=0.0"),
        (("--limit", "0"), "limit=0.0"),
        (("--rates", ""), "rates"),
        (("--rates", "1gbit,1furlong"), "rate '1furlong'"),
        (("--workers", "two"), "'two'"),
    ],
)
def test_suites_that_cannot_run_are_refused(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = _bench(tmp_path, *options, command="bench-network")
    assert done.returncode == 2 and told in done.stderr, done.stderr
