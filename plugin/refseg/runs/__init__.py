"""A view and prototypes come in; fields of predictions go out, and a record of what was done.

Also what is learnt from, suggested for and shown of a dataset. Imports `dataset` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
