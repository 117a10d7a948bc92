"""FiftyOne's datasets, views and labels come in; references, and the candidates of their images, go out.

The floor on which FiftyOne begins. Imports `insight`, `coco` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
