"""Predictions come in, the least sure first; decisions of people go out, from which the next run learns.

Imports `dataset` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
