"""What models need is imported while somebody still chooses references: their first job then begins up to ten seconds sooner.

That begins with the first choice and not with the panel, which may lie open in a workspace of somebody who only looks.
"""

from __future__ import annotations

import logging
import threading

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


def _import() -> None:
    try:
        from refseg.models.loaded import import_libraries

        import_libraries()
    except Exception:
        # Whoever needs them is told then.
        logger.debug("What models need cannot be imported", exc_info=True)
