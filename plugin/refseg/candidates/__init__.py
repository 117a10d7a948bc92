"""Pixels come in; masks that may be objects go out, each with a feature of the encoder and a predicted IoU.

Imports `models`, `images` and `masks`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
