"""Prototypes come in; what they are worth, and what hurts them, goes out as a report with pictures. No FiftyOne.

Imports `calibration` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
