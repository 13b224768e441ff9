"""Build the page anew from web/ and compare it with the one that is committed; needs Node 20 or newer and npm.

What is built goes to a folder of its own. Packed files are compared unpacked: the same bytes pack differently with
another zlib.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "src" / "tiny_kws" / "apps" / "web"


def main() -> None:
    """Build and compare; the exit status is 1 if they differ."""
    if shutil.which("npm") is None:
        sys.exit("found no npm, expected Node 20 or newer with npm to build the page; install them")
    with tempfile.TemporaryDirectory() as name:
        built = Path(name) / "page"
        environment = {**os.environ, "PAGE_FOLDER": str(built)}
        for command in (["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
            subprocess.run(command, cwd=ROOT / "web", env=environment, check=True, stdout=subprocess.DEVNULL)
        differing = differences(files_of(built), files_of(COMMITTED))
    if differing:
        sys.exit(f"The committed page is not what web/ builds ({', '.join(differing)}): build it with `make web`.")
    print(f"The committed page is what web/ builds: {len(files_of(COMMITTED))} files.")


def files_of(folder: Path) -> dict[str, bytes]:
    """The contents of all files below a folder, unpacked, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): gzip.decompress(data) if path.suffix == ".gz" else data
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for data in [path.read_bytes()]
    }


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The files that only one of two pages has, or both with other contents.

    >>> differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b""})
    ['b', 'c']
    """
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


if __name__ == "__main__":
    main()
