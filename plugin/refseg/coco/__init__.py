"""COCO files come in and results go out, with their average precision. No FiftyOne.

Imports `calibration` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
