"""Runs a program that may crash, abort or hang, and always comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, final

_GRACE = 3.0  # seconds between asking a program to end and ending it
_LONGEST_MESSAGE = 300


@final
@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Args:
        output: its standard output.
        failure: "" if it exited with 0, else what happened in a few words.
        seconds: that it took.
    """

    output: str
    failure: str
    seconds: float


def run(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Ended:
    """Run a program to its end, or until the time is up.

    Args:
        command: the program and its arguments.
        environment: all of its variables.
        limit: seconds; then it is ended with all that it has started.
    """
    started = time.monotonic()
    # Files and not pipes: a process that the program leaves behind would keep a pipe open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            return Ended("", f"cannot be started: {error.strerror}", 0.0)
        code = _wait(process, limit)
        texts = [_text(file) for file in (output, errors)]
    return Ended(texts[0], _failure(code, limit, texts[1]), time.monotonic() - started)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            _end(process, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):  # what it has started may still run
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end(process: subprocess.Popen[bytes], by: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, by)
        process.wait(_GRACE)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _failure(code: int | None, limit: float, errors: str) -> str:
    if code == 0:
        return ""
    if code is None:
        return f"did not end within {limit:.0f} s"
    how = f"exit code {code}"
    if code < 0:
        how = f"killed by {signal.Signals(-code).name}"
    message = message_in(errors)
    return f"{message} ({how})" if message else how


def message_in(text: str) -> str:
    """Return the line that says best what went wrong, "" if there is none."""
    lines = [line.strip(" *-") for line in text.splitlines()]
    lines = [line for line in lines if line]
    telling = [
        line for line in lines if "An error occurred in" in line or "Error: " in line or "attempt to run" in line
    ]
    return (telling or lines or [""])[-1][:_LONGEST_MESSAGE]
