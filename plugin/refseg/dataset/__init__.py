"""FiftyOne's datasets, views and labels come in; references, and the candidates of their images, go out.

The floor on which FiftyOne begins. Imports `insight`, `coco` and what lies below them.
"""
