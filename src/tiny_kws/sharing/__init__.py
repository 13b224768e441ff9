"""Describes and publishes a model."""
