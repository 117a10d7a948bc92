"""JSON as it is written."""

from __future__ import annotations

import json

from refseg.coco.json_files import as_json


def test_plain_names_stay_readable() -> None:
    assert as_json({"größe": "日本"}) == '{"größe": "日本"}'
    assert json.loads(as_json(["größe", "\udcfc"])) == ["größe", "\udcfc"]
