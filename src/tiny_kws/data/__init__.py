"""Recordings: finds, reads, divides and prepares them. Needs no torch."""
