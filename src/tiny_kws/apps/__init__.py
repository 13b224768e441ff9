"""Apps to see the models work."""

from __future__ import annotations

from pathlib import Path

from ..errors import KwsError


def shipped(name: str) -> Path:
    """A folder of the repository that also lies in the wheel: `examples` or `space`.

    Raises KwsError if it is in neither place.
    """
    installed = Path(__file__).parent / "shipped" / name
    root = Path(__file__).parents[3]
    checkout = root / ("apps/space" if name == "space" else name)
    found = next((folder for folder in (installed, checkout) if folder.is_dir()), None)
    if found is None:
        raise KwsError(f"{installed}: not found, expected the {name} of this package; install tiny-kws again")
    return found
