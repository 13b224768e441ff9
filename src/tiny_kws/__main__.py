"""`python -m tiny_kws` is `tiny-kws`."""

from .cli import main

main()
