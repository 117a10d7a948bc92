"""COCO files come in and results go out, with their average precision. No FiftyOne.

Imports `calibration` and what lies below it.
"""
