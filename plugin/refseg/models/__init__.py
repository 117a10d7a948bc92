"""A preset's name comes in; a segmenter and an encoder on a device go out, loaded once.

Imports `images`.
"""
