"""Applications around the models. `web/` holds the built page: `make web` makes it from the repository's `web/`."""

from __future__ import annotations

from pathlib import Path

from ..errors import KwsError

HERE = Path(__file__).parent
EXAMPLES_FOLDER = HERE / "web" / "examples"
"""Recordings to try, from the repository's `examples/`."""


def space_folder() -> Path:
    """The files of a Hugging Face Space: the repository's `apps/space`, which is also in the wheel.

    Raises KwsError if they are in neither place.
    """
    installed, checkout = HERE / "space_files", HERE.parents[2] / "apps" / "space"
    found = next((folder for folder in (installed, checkout) if folder.is_dir()), None)
    if found is None:
        raise KwsError(f"{installed}: not found, expected the Space's files in this package; install tiny-kws again")
    return found
