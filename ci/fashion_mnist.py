"""Fetches the complete Fashion-MNIST and prints its folder: `python3 ci/fashion_mnist.py`.

The folder is the environment variable HVD_COMPRESS_DATA, else one in the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from pathlib import Path

from lock import Lock
from paths import CACHE
from preconditions import check_disk
from problem import Problem, report
from steps import step

_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_PACKAGE = "dataset-fashion-mnist"
_GB = 0.2  # lists, package and files, all for a moment at once
_IN_PACKAGE = "usr/share/datasets/fashion-mnist"

# Of the unpacked contents: the package and the site compress the same bytes differently.
_FILES = {
    "train-images-idx3-ubyte.gz": (
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def folder() -> Path:
    named = os.environ.get("HVD_COMPRESS_DATA")
    return Path(named).expanduser().absolute() if named else CACHE / "fashion-mnist"


def ensure() -> Path:
    """The folder with the four files, verified; downloads them where one is missing or damaged."""
    if _is_complete(folder()):
        return folder()
    with Lock(CACHE / "fashion-mnist.lock", "another download of Fashion-MNIST"):
        if not _is_complete(folder()):
            check_disk([folder()], _GB)
            with step("downloading Fashion-MNIST (31 MB, 10 seconds)"):
                _fetch()
    return folder()


def _fetch() -> None:
    folder().mkdir(parents=True, exist_ok=True)
    # Beside the target, so that moving a verified file into place is one step.
    with tempfile.TemporaryDirectory(dir=folder(), prefix=".partial-") as name:
        partial = Path(name)
        if not _from_package(partial) and not _from_site(partial):
            raise Problem(
                "Fashion-MNIST could not be downloaded, neither as a Debian package nor from its site: "
                f"check the network and run it again, or put its four .gz files into {folder()}."
            )
        for file in _FILES:
            (partial / file).replace(folder() / file)


def _from_package(partial: Path) -> bool:
    """Through apt, which needs no root as long as it only downloads."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return False
    work = partial / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    cache = [f"-oDir::Cache={work / 'cache'}", "-oAPT::Sandbox::User="]
    own_lists = [f"-oDir::State::Lists={work / 'lists'}", *cache]
    if not _quietly(["apt-get", *cache, "download", _PACKAGE], work):
        # The system's package lists are missing or old, and only root may renew those.
        if not _quietly(["apt-get", *own_lists, "update"], work):
            return False
        if not _quietly(["apt-get", *own_lists, "download", _PACKAGE], work):
            return False
    package = next(work.glob("*.deb"))
    if not _quietly(["dpkg", "-x", package, work / "root"], work):
        return False
    for file in _FILES:
        shutil.copyfile(work / "root" / _IN_PACKAGE / file, partial / file)
    return _is_complete(partial)


def _quietly(command: list[str | Path], cwd: Path) -> bool:
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, timeout=300, close_fds=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _from_site(partial: Path) -> bool:
    for file in _FILES:
        try:
            with (
                urllib.request.urlopen(_SITE + file, timeout=60) as answer,
                (partial / file).open("wb") as target,
            ):
                shutil.copyfileobj(answer, target)
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
                raise
            return False
    return _is_complete(partial)


def _is_complete(where: Path) -> bool:
    return all(_is_intact(where / file, *expected) for file, expected in _FILES.items())


def _is_intact(path: Path, size: int, sha256: str) -> bool:
    if not path.is_file():
        return False
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return len(content) == size and hashlib.sha256(content).hexdigest() == sha256


if __name__ == "__main__":
    with report():
        print(ensure())
