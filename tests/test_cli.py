"""`python -m hvd_compress`: rules on made-up facts, probes that die, and one real check."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

import hvd_compress
from hvd_compress import cli
from hvd_compress.cli import check, list_compressors
from hvd_compress.cli.environment import child, gather, judge, report
from hvd_compress.cli.environment.facts import Facts, Launcher, Library, Run, Start
from hvd_compress.cli.environment.probing import probe, understand
from hvd_compress.horovod import build, launch, mpi_version, quirks
from hvd_compress.horovod.build import Extension, Horovod

OPEN_MPI = "Open MPI v4.1.8, package: Open MPI user@localhost Distribution, ident: 4.1.8"
MPICH = "MPICH Version:      4.2.1\nMPICH Release date: ..."
MPIRUN_4 = "mpirun (Open MPI) 4.1.8\n\nReport bugs to ..."
MPIRUN_5 = "mpirun (Open MPI) 5.0.6"
HYDRA = "HYDRA build details:\n    Version:                                 4.2.1"

TORCH = Extension(True, "2.13.0", transports=("mpi", "gloo"), mpi=OPEN_MPI)
TENSORFLOW = Extension(True, "2.21.0", transports=("mpi", "gloo"), mpi=OPEN_MPI)
GOOD = Facts(
    python=(3, 11, 7),
    numpy=Library("2.4.6"),
    torch=Library("2.13.0"),
    tensorflow=Library("2.21.0"),
    keras=Library("2.15.0"),
    mpi4py=Library("4.1.2", mpi=OPEN_MPI),
    horovod=Horovod("0.28.1", {"torch": TORCH, "tensorflow": TENSORFLOW, "mxnet": Extension()}),
    launchers={
        "horovodrun": Launcher("/bin/horovodrun", says="0.28.1"),
        "mpirun": Launcher("/bin/mpirun", says=MPIRUN_4),
    },
    starts={"horovod": Start(), "mpi4py": Start()},
)


def changed(**fields):
    return dataclasses.replace(GOOD, **fields)


def with_torch(**fields):
    extensions = {**GOOD.horovod.extensions, "torch": dataclasses.replace(TORCH, **fields)}
    return changed(horovod=Horovod("0.28.1", extensions))


def with_launcher(name, **fields):
    launcher = dataclasses.replace(GOOD.launchers[name], **fields)
    return changed(launchers={**GOOD.launchers, name: launcher})


def only_torch(**fields):
    return changed(tensorflow=Library(), horovod=Horovod("0.28.1", {"torch": dataclasses.replace(TORCH, **fields)}))


def test_good_facts_need_no_cure_but_for_what_is_optional():
    rows = judge.rows(GOOD)
    assert judge.usable(rows)
    assert {row.state for row in rows} == {"ok", "missing"}
    missing = {row.name for row in rows if row.state == "missing"}
    assert missing == {"for mxnet", "with NCCL", "with DDL", "with CCL", "with CUDA"}
    assert rows[-1].found == "torch and tensorflow with horovodrun --gloo, horovodrun --mpi, mpirun"


# (what was found, the row that speaks of it, its state, a part of what it says, a part of the cure, training can run)
RULES = {
    "old Python": (changed(python=(3, 9, 2)), "python", "error", "3.9.2 is too old", "Python 3.11", False),
    "new Python": (changed(python=(3, 14, 0)), "python", "warning", "3.14.0 is newer", "3.10 to 3.13", True),
    "no NumPy": (changed(numpy=Library()), "numpy", "error", "not installed", "pip install numpy", False),
    "one framework": (changed(torch=Library()), "torch", "missing", "not installed", "pip install torch", True),
    "no framework": (
        changed(torch=Library(), tensorflow=Library()),
        "torch",
        "error",
        "not installed",
        "pip install torch",
        False,
    ),
    "broken torch": (
        changed(torch=Library("2.13.0", error="OSError: libc10.so")),
        "torch",
        "error",
        "libc10.so",
        "--force-reinstall",
        True,
    ),
    "Keras 3": (
        changed(keras=Library("3.15.1")),
        "keras",
        "warning",
        "without reducing any gradient",
        "import hvd_compress.keras as hvd",
        True,
    ),
    "no Horovod": (changed(horovod=Horovod()), "horovod", "error", "not installed", "make setup", False),
    "old Horovod": (
        changed(horovod=dataclasses.replace(GOOD.horovod, version="0.26.1")),
        "horovod",
        "warning",
        "older than the tested",
        "0.28.1",
        True,
    ),
    "another torch, loads": (
        with_torch(built_against="2.2.0"),
        "for torch",
        "warning",
        "built against torch 2.2.0 and 2.13.0 is installed",
        "Build Horovod",
        True,
    ),
    "another torch, fails": (
        with_torch(built_against="2.2.0", error="ImportError: undefined symbol", transports=()),
        "for torch",
        "error",
        "built against torch 2.2.0, installed is 2.13.0",
        "Build Horovod",
        True,
    ),
    "same torch, fails": (
        only_torch(error="ImportError: libmpi.so.40", transports=()),
        "for torch",
        "error",
        "libmpi.so.40",
        "Build Horovod",
        False,
    ),
    "without torch": (with_torch(built=False), "for torch", "missing", "not built", "Build".lower(), True),
    "CUDA without NCCL": (
        changed(torch=Library("2.13.0", accelerator="CUDA 12.8", devices=("a GPU",))),
        "with NCCL",
        "warning",
        "CUDA 12.8",
        "HOROVOD_GPU_OPERATIONS=NCCL",
        True,
    ),
    "no transport": (
        only_torch(transports=()),
        "with Gloo",
        "missing",
        "not built in",
        "HOROVOD_WITH_GLOO=1",
        False,
    ),
    "no launcher": (changed(launchers={}), "horovodrun", "missing", "not found", "reinstall Horovod", False),
    "no mpirun": (
        changed(launchers={"horovodrun": GOOD.launchers["horovodrun"]}),
        "horovodrun --mpi",
        "missing",
        "no mpirun",
        "--gloo",
        True,
    ),
    "broken horovodrun": (
        with_launcher("horovodrun", error="ModuleNotFoundError: No module named 'yaml' (exit code 1)"),
        "horovodrun",
        "error",
        "yaml",
        "--version",
        True,
    ),
    "Open MPI 5": (
        with_launcher("mpirun", says=MPIRUN_5),
        "horovodrun --mpi",
        "warning",
        "-bind-to",
        '--binding-args="--bind-to none --map-by slot"',
        True,
    ),
    "not on PATH": (
        with_launcher("mpirun", path="/some/bin/mpirun", on_path=False),
        "horovodrun --mpi",
        "warning",
        "not on PATH",
        'PATH="/some/bin:$PATH"',
        True,
    ),
    "root": (changed(root_refused=True), "mpirun", "warning", "root", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", True),
    "mpi4py of MPICH": (
        changed(mpi4py=Library("4.1.2", mpi=MPICH)),
        "MPI library of mpi4py",
        "warning",
        "MPICH 4.2.1, but mpirun is of Open MPI 4.1.8",
        "first on PATH",
        True,
    ),
    "Horovod of another MPI": (
        with_launcher("mpirun", says=HYDRA),
        "MPI library of Horovod",
        "warning",
        "Open MPI 4.1.8, but mpirun is of MPICH 4.2.1",
        "rebuild Horovod",
        True,
    ),
    "aborts in MPI_Init": (
        changed(starts={"horovod": Start("An error occurred in MPI_Init", ("HOROVOD_CONTROLLER=gloo",))}),
        "horovod without launcher",
        "warning",
        "MPI_Init",
        "HOROVOD_CONTROLLER=gloo",
        True,
    ),
    "aborts whatever is done": (
        changed(starts={"horovod": Start("An error occurred in MPI_Init")}),
        "horovod without launcher",
        "warning",
        "MPI_Init",
        "horovodrun -np 1",
        True,
    ),
    "one run fails": (
        changed(runs={"mpirun": Run("mpirun ...", error="no slots"), "horovodrun --gloo": Run("horovodrun ...")}),
        "2 workers, mpirun",
        "error",
        "no slots",
        "`mpirun ...`",
        True,
    ),
    "every run fails": (
        changed(runs={"mpirun": Run("mpirun ...", error="no slots")}),
        "training",
        "error",
        "did not reach each other",
        "rows of the launchers",
        False,
    ),
}


@pytest.mark.parametrize(("facts", "name", "state", "found", "cure", "usable"), RULES.values(), ids=RULES)
def test_rule(facts, name, state, found, cure, usable):
    rows = judge.rows(facts)
    (row,) = [row for row in rows if row.name == name]
    assert row.state == state
    assert found in row.found
    assert cure in row.cure
    assert judge.usable(rows) == usable
    for row in rows:
        assert bool(row.cure) == (row.state != "ok"), row
        assert not row.cure or (row.cure.endswith(".") and row.cure[0].isupper()), row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN_MPI, "Open MPI 4.1.8"),
        (MPIRUN_5, "Open MPI 5.0.6"),
        (MPICH, "MPICH 4.2.1"),
        (HYDRA, "MPICH 4.2.1"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.9 Build 20230307", "Intel MPI 2021.9"),
        ("Intel(R) MPI Library 2021.9 for Linux* OS", "Intel MPI 2021.9"),
        ("something else 1.0", "None"),
        ("", "None"),
    ],
)
def test_mpi_is_recognised(text, expected):
    assert str(mpi_version.parse(text)) == expected


def test_unknown_mpi_differs_from_nothing():
    assert not mpi_version.differ("", MPIRUN_4)
    assert not mpi_version.differ(OPEN_MPI, "something else 1.0")
    assert mpi_version.differ(OPEN_MPI, MPIRUN_5)


def test_command_lines():
    four, five = mpi_version.parse(MPIRUN_4), mpi_version.parse(MPIRUN_5)
    start = ["horovodrun", "--mpi", "-np", "3", "-H", "localhost:3"]
    binding = f"--binding-args={quirks.OPEN_MPI_5_BINDING}"
    assert launch.command("horovodrun --mpi", 3, ["x"], "horovodrun", four) == [*start, "x"]
    assert launch.command("horovodrun --mpi", 3, ["x"], "horovodrun", five) == [*start, binding, "x"]
    assert launch.command("mpirun", 3, ["x"], "mpirun", four) == ["mpirun", "-np", "3", "--oversubscribe", "x"]
    assert launch.command("mpirun", 3, ["x"], "mpirun") == ["mpirun", "-np", "3", "x"]


def test_environment_of_workers(monkeypatch):
    surrounding = {"PATH": "/bin", "HOROVOD_RANK": "1", "OMPI_COMM_WORLD_RANK": "1", "HOROVOD_CACHE_CAPACITY": "9"}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environment = launch.environment(surrounding)
    assert environment.pop("PATH").split(os.pathsep) == [launch.own_folder(), "/bin"]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    assert environment == {"HOROVOD_CACHE_CAPACITY": "9", **root}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in launch.environment(surrounding)


def test_build_is_read_from_disk(tmp_path):
    for file in ("torch/mpi_lib_v2.cpython-311-x86_64-linux-gnu.so", "tensorflow/__init__.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    (tmp_path / "metadata.json").write_text('{"tensorflow": "2.21.0", "pytorch": "2.13.0", "dummy": "none"}')
    extensions = build.extensions_in(tmp_path)
    assert extensions["torch"] == Extension(True, "2.13.0")
    assert [name for name, extension in extensions.items() if extension.built] == ["torch"]
    (tmp_path / "metadata.json").write_text("not JSON")
    assert build.extensions_in(tmp_path)["torch"] == Extension(True)


def run_python(code, limit=20.0):
    return child.run([sys.executable, "-c", code], os.environ, limit)


def test_child_that_ends():
    assert run_python("print('hello')").output == "hello\n"
    assert run_python("print('hello')").failure == ""
    assert run_python("raise ValueError('bad')").failure == "ValueError: bad (exit code 1)"
    assert run_python("import os; os.abort()").failure == "killed by SIGABRT"
    assert child.run(["/no/such/program"], {}, 1.0).failure == "cannot be started: No such file or directory"


def test_child_that_hangs_with_a_child_of_its_own_is_ended():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.monotonic()
    assert run_python(code, limit=1.0).failure == "did not end within 1 s"
    assert time.monotonic() - started < 10


def test_child_that_ignores_the_request_to_end_is_killed(monkeypatch):
    monkeypatch.setattr(child, "_GRACE", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert run_python(code, limit=1.0).failure == "did not end within 1 s"


def test_message_of_an_mpi_abort():
    text = "[x] noise\n---\n*** An error occurred in MPI_Init_thread\n*** on a NULL communicator\n"
    assert child.message_in(text) == "An error occurred in MPI_Init_thread"
    assert child.message_in("") == ""


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os; os.abort()", "killed by SIGABRT"),
        ("raise OSError('libc10.so: no such file')", "OSError: libc10.so: no such file"),
        ("import time; time.sleep(60)", "did not end within 3 s"),
        ("import os; os._exit(0)", "ended without a word"),
    ],
)
def test_probe_survives_a_package_that_does_not(tmp_path, code, error):
    (tmp_path / "torch.py").write_text(code)
    probed = probe("torch", {**os.environ, "PYTHONPATH": str(tmp_path)}, 3.0)
    assert (probed.failed, probed.error, probed.stages) == ("torch", error, {})
    found = gather.library(Library("9.9"), "torch", probed)
    assert found == Library("9.9", error=error)
    assert not found.works


def probe_lines(*lines):
    return "noise\n" + "".join(f"hvd_compress probe: {json.dumps(line)}\n" for line in lines)


def test_an_extension_that_dies_leaves_the_framework_standing():
    begun = {"begin": "torch"}, {"end": "torch", "found": {"version": "2.13.0"}}, {"begin": "extension"}
    probed = understand(child.Ended(probe_lines(*begun), "killed by SIGSEGV", 1.0))
    assert gather.library(Library("2.13.0"), "torch", probed) == Library("2.13.0")
    horovod = gather.with_extensions(Horovod("0.28.1", {"torch": Extension(True, "2.2.0")}), {"torch": probed})
    assert horovod.extension("torch") == Extension(True, "2.2.0", error="killed by SIGSEGV")


def test_a_crash_after_the_last_stage_is_not_a_failure():
    lines = {"begin": "torch"}, {"end": "torch", "found": {"version": "2.13.0"}}, {"begin": ""}
    probed = understand(child.Ended(probe_lines(*lines), "killed by SIGSEGV", 1.0))
    assert (probed.failed, probed.error) == ("", "")


def test_a_probe_that_never_begins_is_a_failure():
    probed = understand(child.Ended("", "cannot be started: out of memory", 1.0))
    assert gather.library(Library("2.13.0"), "torch", probed).error == "cannot be started: out of memory"


@pytest.mark.parametrize("facts", [GOOD, RULES["no Horovod"][0]], ids=["good", "no Horovod"])
def test_exit_code_follows_the_verdict(monkeypatch, capsys, facts):
    monkeypatch.setattr(gather, "gather", lambda: facts)
    assert cli.main(["check"]) == (0 if facts is GOOD else 1)
    assert "training" in capsys.readouterr().out
    assert cli.main(["check", "--json"]) == (0 if facts is GOOD else 1)
    content = json.loads(capsys.readouterr().out)
    assert content["usable"] == (facts is GOOD)
    assert content["rows"][-1]["name"] == "training"
    assert content["facts"]["torch"]["version"] == "2.13.0"


def test_cures_are_printed_on_one_line_each_and_markup_is_not_interpreted():
    facts = dataclasses.replace(RULES["Open MPI 5"][0], torch=Library("2.13.0", error="[bold]Error[/bold]"))
    console = Console(width=60, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        report.show(judge.rows(facts), console)
    text = console.export_text()
    assert '--binding-args="--bind-to none --map-by slot" ...`, or mpirun itself.' in text
    assert "[bold]" in text


def test_list(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name in hvd_compress.names():
        assert re.search(rf"^{name} ", out, flags=re.MULTILINE)
    assert list_compressors.describe("none") == ("Identity()", "No compression: C(x) = x.")


def test_list_shows_a_compressor_that_cannot_be_made(monkeypatch):
    def resolve(name):
        raise ImportError("no such module")

    monkeypatch.setattr(list_compressors.registry, "resolve", resolve)
    assert list_compressors.describe("other") == ("", "cannot be made: ImportError: no such module")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [(["--version"], 0, hvd_compress.__version__), ([], 2, "COMMAND"), (["chekc"], 2, "invalid choice")],
)
def test_arguments(capsys, arguments, code, text):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == code
    assert text in "".join(capsys.readouterr())


def test_every_command_has_a_help_line(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert check.NAME in out and list_compressors.NAME in out and "what is installed here" in out


def test_an_error_of_ours_is_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise hvd_compress.ConfigurationError("Something is wrong; do this.")

    monkeypatch.setattr(check, "run", fail)
    assert cli.main(["check"]) == 2
    assert capsys.readouterr().err == "hvd_compress check: Something is wrong; do this.\n"


@pytest.mark.timeout(120)
def test_real_check_ends_in_time_and_agrees_with_its_exit_code():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hvd_compress", "check", "--json"], capture_output=True, text=True, timeout=90
    )
    assert time.monotonic() - started < 75
    assert done.stderr == ""
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["usable"] else 1)
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["python"]["state"] == "ok"
    assert rows["numpy"]["state"] == "ok"
    if content["facts"]["horovod"]["version"] is None:
        assert done.returncode == 1


@pytest.mark.multiprocess
@pytest.mark.skipif(build.installed().version is None, reason="Horovod is not installed: run `make setup`")
def test_real_run_of_two_workers():
    framework = next(name for name in ("torch", "tensorflow") if build.installed().extension(name).built)
    horovod = Horovod("0.28.1", {framework: Extension(True, transports=("gloo",))})
    path = os.path.join(launch.own_folder(), "horovodrun")
    facts = gather.with_runs(changed(horovod=horovod, launchers={"horovodrun": Launcher(path)}))
    assert list(facts.runs) == ["horovodrun --gloo"]
    assert facts.runs["horovodrun --gloo"].error == ""
