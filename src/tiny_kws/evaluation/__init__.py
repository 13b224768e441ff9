"""Measurement: what a model gets right on clips, with intervals, and figures of it."""
