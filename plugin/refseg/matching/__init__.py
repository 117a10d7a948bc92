"""Candidates and prototypes come in; ranked instances with labels and scores go out.

Imports `prototypes`, `candidates` and what lies below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
