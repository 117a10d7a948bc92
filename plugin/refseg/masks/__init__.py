"""Masks and the numbers beside them, as files hold them: run-length codes, polygons, pictures, texts.

Out come boolean arrays, boxes and flags, or a refusal that says why. Imports nothing of RefSeg but errors and images' values.
"""
