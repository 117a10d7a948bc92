"""A path comes in; an upright image of eight-bit RGB goes out, or an `ImageError` that says why not.

Also how such images are read ahead, scaled and drawn for people. Imports errors alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
