"""A model described and published."""
