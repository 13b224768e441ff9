"""Measurement: how often a model is right on clips and in streams, with intervals, tables and figures."""
