"""Prototypes come in; what they are worth, and what hurts them, goes out as a report with pictures. No FiftyOne.

Imports `calibration` and what lies below it.
"""
