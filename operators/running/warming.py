"""What models need is imported while somebody still chooses references: their first job then begins up to ten seconds sooner.

That begins with the first choice and not with the panel, which may lie open in a workspace of somebody who only looks. Of an
indexed dataset without prototypes there is nothing to look at yet: there it begins with the panel.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from ..forms.form import dataset_problem
from ..forms.indexes import index_records
from ..forms.inputs import kept_prototypes

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_thread: threading.Thread | None = None


def warm_up() -> threading.Thread:
    """Import PyTorch, SAM 2 and DINOv2's code in a thread, once a process. No weights are read.

    A job that loads models in the meantime waits for it.
    """
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_import, name="refseg-warming", daemon=True)
            _thread.start()
        return _thread


def warm_up_for_the_first(ctx: Any) -> None:
    """Do so where an index waits for its first references."""
    if dataset_problem(ctx) is None and index_records(ctx) and not kept_prototypes(ctx):
        warm_up()


def _import() -> None:
    try:
        # First what a click needs that finds its mask in the index.
        from refseg.models.loaded import import_libraries

        import_libraries()
    except Exception:
        # Whoever needs them is told then.
        logger.debug("What models need cannot be imported", exc_info=True)
