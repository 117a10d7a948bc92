"""References come in; one prototype a class goes out, with all that helps to tell it from the rest.

Imports `candidates` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
