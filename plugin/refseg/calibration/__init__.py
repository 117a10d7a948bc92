"""What lies in images whose objects are known comes in; thresholds and negatives go out.

Imports `matching` and what lies below it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
