"""Updates of MongoDB that survive its crash, and updates and reads that are tried again when the connection breaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

from fiftyone.core.odm import get_db_conn
from pymongo import WriteConcern
from pymongo.errors import AutoReconnect, CursorNotFound, ServerSelectionTimeoutError

DURABLE = WriteConcern(w="majority", j=True, wtimeout=60_000)
"""What was acknowledged survives a crash of MongoDB: it waits for the journal, a fifth of a millisecond here."""

PAUSES = (0.1, 0.5, 2.0)
"""Seconds before the next try. Where no server answers at all, pymongo has waited half a minute already."""

Result = TypeVar("Result")


def settle(dataset: Any) -> None:
    """Wait until all that was written before survives a crash of MongoDB: its journal is one, and in order."""
    datasets = get_db_conn().datasets.with_options(write_concern=DURABLE)
    now = datetime.now(timezone.utc)
    patiently(lambda: datasets.update_one({"_id": dataset._root_dataset._doc.id}, {"$set": {"last_modified_at": now}}))


def patiently(update: Callable[[], Result]) -> Result:
    """Read again, or do an update again of which nobody knows whether it arrived: one that may be done twice.

    Raises:
        pymongo.errors.AutoReconnect: the connection breaks each time.
        pymongo.errors.CursorNotFound: MongoDB begins anew each time while it is read from.
    """
    for pause in PAUSES:
        try:
            return update()
        except ServerSelectionTimeoutError:
            raise
        except (AutoReconnect, CursorNotFound):
            time.sleep(pause)
    return update()
