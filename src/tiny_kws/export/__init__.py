"""Checkpoint to artefact: what a network is, written in the formats that run it. Needs torch."""
