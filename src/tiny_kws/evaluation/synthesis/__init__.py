"""Test streams: made from labelled clips, by our own recipe and by published protocols."""
