"""Images go to workers, and come back as shards of an index: files that workers write and one driver commits, exactly once.

Imports `index` and what lies below it. Ray is imported where it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
