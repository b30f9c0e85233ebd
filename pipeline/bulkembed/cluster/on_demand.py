"""An executor that connects Ray when there is work for it. A night in which nothing is embedded needs no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bulkembed import stopping
from bulkembed.cluster import connect, room, survey
from bulkembed.cluster.backlog import useful_actors
from bulkembed.cluster.ray_executor import RayExecutor, ray_executor
from bulkembed.cluster.ray_mapper import RayMapper
from bulkembed.embedding import hardware
from bulkembed.records import Failure, LostAttempt, Receipt, Sampled
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import landmarks
from bulkembed.runs.mapper import LocalMapper, Mapper
from bulkembed.shards import Shard

LOCAL_BYTES = 4 << 30  # the most that threads of this process read and write, where a Ray of its own would have no more cores
LOCAL_BYTES_ON_CLUSTER = 256 << 20  # the same where a cluster is to be had, whose head may have one core


class OnDemand:
    """Everything that it starts ends with `stack`."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job, self.stack = job, stack
        self.session: dict[str, str] | None = None  # what Ray's processes inherit, once it is connected
        self.executor: RayExecutor | None = None
        self.is_alone = False  # whether Ray is one of this process's own, which has no other node
        self.is_surveyed = False
        self.actors = ExitStack()  # ends them

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        return self.started(shards, job).run(shards, job)

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        return self.started(shards, job).sample(shards, job)

    def mapper(self, size: int) -> Mapper:
        """Threads of this process for little, tasks of Ray for more: more than 256 MiB where a cluster's address is given, or Ray is
        connected; more than 4 GiB where Ray would have to be started on this host."""
        if size <= (LOCAL_BYTES_ON_CLUSTER if self.has_cluster else LOCAL_BYTES):
            return LocalMapper()
        self.connect()
        self.end_actors()
        room.require_cores(self.job.cfg.ray)
        self.survey_output()
        return RayMapper()

    def survey_output(self) -> None:
        """Looks once, from every node, at the output to which the tasks of a mapper write."""
        if not (self.is_alone or self.is_surveyed):
            with landmarks(self.job, []) as seen:
                survey.look_from_every_node(self.job, seen)
            self.is_surveyed = True

    @property
    def has_cluster(self) -> bool:
        return connect.is_connected() or hardware.cluster_address(self.job.cfg.ray.address) is not None

    def end_actors(self) -> None:
        """Ends the embedding actors. On a CPU host they hold all cores, and no task would ever start beside them."""
        self.actors.close()
        self.executor = None

    def connect(self) -> dict[str, str]:
        if self.session is None:
            self.is_alone = not self.has_cluster
            stopping.stop.check()
            self.stack.enter_context(connect.no_run_within_another())
            self.session = dict(self.stack.enter_context(connect.session(self.job.cfg.ray, self.job)))
        return self.session

    def started(self, shards: list[Shard], job: Job) -> RayExecutor:
        inherited = self.connect()
        if self.executor is None:
            self.stack.callback(self.actors.close)  # before the session, which was entered earlier
            seen = None if self.is_alone else self.actors.enter_context(landmarks(job, shards))
            self.executor = self.actors.enter_context(ray_executor(job, useful_actors(shards), inherited, seen))
        return self.executor
