"""Two fields of a dataset come in; COCO's figures go out, by pycocotools and by FiftyOne. One comes in; counts go out.

Imports `dataset`, `coco` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
