"""A path comes in; an upright image of eight-bit RGB goes out, or an `ImageError` that says why not.

Also how such images are read ahead, scaled and drawn for people. Imports errors alone.
"""
