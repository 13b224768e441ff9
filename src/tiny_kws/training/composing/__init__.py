"""Composes batches of sound to train on from prepared data."""
