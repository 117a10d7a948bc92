"""Two fields of a dataset come in; COCO's figures go out, by pycocotools and by FiftyOne.

Imports `dataset`, `coco` and what lies below them.
"""
