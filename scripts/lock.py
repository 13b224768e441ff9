"""Write requirements-dev.lock: one pinned version of everything the tests need, for every Python and system.

CUDA's libraries are left out: torch asks for those it needs where it needs them, and its CPU builds for none.
"""

import re
import subprocess
import sys

COMMAND = [
    sys.executable,
    "-m",
    "uv",
    "pip",
    "compile",
    "pyproject.toml",
    "--all-extras",
    "--group",
    "dev",
    "--universal",
    "--python-version",
    "3.10",
    "--no-annotate",
    "--no-header",
    "--quiet",
]
CUDA = re.compile(r"^(nvidia|cuda|triton)")


def main() -> None:
    """Resolve and write."""
    resolved = subprocess.run(COMMAND, check=True, capture_output=True, text=True).stdout
    lines = [line for line in resolved.splitlines() if not CUDA.match(line)]
    with open("requirements-dev.lock", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("# Made by `make lock` from pyproject.toml; do not edit.\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
