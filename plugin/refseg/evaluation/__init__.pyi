from .confusion import Cell as Cell
from .confusion import cells_from_text as cells_from_text
from .counting import iter_write_counts as iter_write_counts
from .counting import write_counts as write_counts
from .evaluating import evaluate as evaluate
from .evaluating import false_positives_per_empty_image as false_positives_per_empty_image
from .evaluating import iter_evaluate as iter_evaluate
