from .deciding import Decision as Decision
from .decisions import accept as accept
from .decisions import reject as reject
from .decisions import undo as undo
from .queue import QueueItem as QueueItem
from .queue import review_queue as review_queue
from .queue import summarize as summarize
from .summary import ReviewSummary as ReviewSummary
