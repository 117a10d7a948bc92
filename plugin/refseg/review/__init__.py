"""Predictions come in, the least sure first; decisions of people go out, from which the next run learns.

Imports `dataset` and what lies below it.
"""
