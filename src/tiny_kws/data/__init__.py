"""Recordings: where they lie, how they are read, divided and prepared. Needs no torch."""
