"""Turns a checkpoint into an artefact: writes a network in the formats that run it. Needs torch."""
