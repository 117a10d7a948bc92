from .committing import Committer as Committer
from .on_ray import compute_shards as compute_shards
from .on_ray import connected as connected
from .on_ray import pool_of as pool_of
from .records import Records as Records
from .shard import Shard as Shard
from .worker import WorkerSettings as WorkerSettings
from .writing import ShardWriter as ShardWriter
