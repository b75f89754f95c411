"""Long steps: one line on the screen, everything else in a log file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from paths import CACHE
from problem import Problem, known_cause

_SHOWN = 20
_ERROR = re.compile(r"(^|\W)(fatal )?error: (?!subprocess)|CMake Error|: not found$|\*\*\* .* Error \d")


def say(line: str) -> None:
    print(f"set-up: {line}", flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    print(f"set-up: {what} ... ", end="", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def run(
    name: str,
    command: Sequence[str | Path],
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Run a noisy command, in `environ` where given; its output goes to a log that a failure names."""
    log = CACHE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        code = _wait(command, cwd, environ, output.fileno())
    if code == 0:
        return
    text = log.read_text(errors="replace")
    cause = known_cause(text)
    if cause is None:
        print("\n".join(["", *_telling(text.splitlines())]), flush=True)
        cause = f"{name} failed: cure what the lines above name and run it again."
    raise Problem(f"{cause} Log: {log}")


def _telling(lines: list[str]) -> list[str]:
    """The lines from the first error on: after a failed compilation the last ones say nothing."""
    first = next((number for number, line in enumerate(lines) if _ERROR.search(line)), len(lines) - _SHOWN)
    return lines[max(0, first) :][:_SHOWN]


def _wait(command: Sequence[str | Path], cwd: Path | None, environ: Mapping[str, str] | None, output: int) -> int:
    # Its own session, so that an interrupt stops the compilers below it too; open descriptors, for the lock.
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=False,
    )
    try:
        return process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
