"""Names made from what users choose: keys of runs, fields and folders, from presets, fields and classes of any name.

A preset may be called `demo-fast`, a field `my parts`, a class `螺母`; none of these can be a key. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

PLAIN_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def run_key_from(text: str) -> str:
    """A valid FiftyOne run key made of any text; what loses letters or digits on the way gets a few of a checksum instead.

    Example:
        >>> run_key_from("my parts, v2")
        'my_parts_v2'
        >>> run_key_from("heatmap_螺母"), run_key_from("heatmap_垫圈")
        ('heatmap_399ef5', 'heatmap_123157')
    """
    composed = unicodedata.normalize("NFKD", text)
    plain = composed.encode("ascii", "ignore").decode()
    key = re.sub(r"\W+", "_", plain).strip("_")
    if any(letter.isalnum() and not letter.isascii() for letter in composed):
        key = f"{key}_{_checksum(text)}".lstrip("_")
    return key if key and not key[0].isdigit() else f"refseg_{key}".rstrip("_")


def folder_from(text: str) -> str:
    """A folder's name made of any text, unchanged where it can be, otherwise another for each text.

    Example:
        >>> folder_from("demo-fast-a22ab9b22678"), folder_from("../mine")
        ('demo-fast-a22ab9b22678', 'mine_b8bc1f')
    """
    return text if PLAIN_FOLDER.fullmatch(text) else f"{run_key_from(text)}_{_checksum(text)}"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
