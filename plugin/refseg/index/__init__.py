"""Candidates of many images come in and lie in Lance tables; those of some images, or the most similar, go out.

Imports `candidates` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
