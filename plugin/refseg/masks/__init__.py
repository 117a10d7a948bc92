"""Masks and the numbers beside them, as files hold them: run-length codes, polygons, pictures, texts.

Out come boolean arrays, boxes and flags, or a refusal that says why. Imports nothing of RefSeg but errors and images' values.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
