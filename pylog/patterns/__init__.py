"""Patterns of event-driven systems, one file each, built on nothing but what `pylog` exports.

What they keep, they keep in topics: it is seen by all processes and moves with the data.
"""
