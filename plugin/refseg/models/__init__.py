"""A preset's name comes in; a segmenter and an encoder on a device go out, loaded once.

Imports `images`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
