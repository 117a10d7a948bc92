"""Pixels come in; masks that may be objects go out, each with a feature of the encoder and a predicted IoU.

Imports `models`, `images` and `masks`.
"""
