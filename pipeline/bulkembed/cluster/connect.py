"""The Ray that a run works on: it is joined or started here."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

from bulkembed import process_state, stopping
from bulkembed.cluster import joining, own_ray, placement
from bulkembed.config.sections import RayConfig
from bulkembed.embedding import hardware
from bulkembed.embedding.environment import engine_environment
from bulkembed.errors import BulkembedError, ClusterError, ConfigError
from bulkembed.runs.job import Job

log = logging.getLogger(__name__)

RAY_LOG_LEVEL = logging.CRITICAL  # Ray also raises what it logs, and that ends as one line of our own
CLIENT_TIMEOUT_SECONDS = "4"  # for the first of three attempts of Ray Client. Each is longer: 24 s in all
MAX_REASON = 300  # characters
OBJECT_STORE_BYTES = 1 << 30  # for a local Ray: a few shards


# A process has one Ray. A second run waits for the first, and may be within it.
ONE_AT_A_TIME = threading.RLock()
RUN_OF_THREAD = threading.local()  # `is_under_way`, once the thread has begun a run


@contextmanager
def no_run_within_another() -> Iterator[None]:
    """Raises ConfigError within another run of this thread. The two would wait for each other: the outer one's actors hold the cores."""
    if getattr(RUN_OF_THREAD, "is_under_way", False):
        raise ConfigError("on_progress: must not start another run, which would wait for the cores of this one; start it afterwards")
    RUN_OF_THREAD.is_under_way = True
    try:
        yield
    finally:
        RUN_OF_THREAD.is_under_way = False


@contextmanager
def session(cfg: RayConfig, job: Job | None = None) -> Iterator[Mapping[str, str]]:
    """A connected Ray: the one that this process has already, else the cluster at `address` (or RAY_ADDRESS), else a Ray of this
    process's own on loopback. Only the first is left connected. The process has its environment and its signal handlers back afterwards.

    Yields the environment of `job`'s actors that every process of this Ray has already: nothing where the Ray was there before.
    Raises ClusterError where no Ray can be joined or started."""
    with ONE_AT_A_TIME, ExitStack() as stack:
        if is_connected():
            stack.enter_context(quiet())
            yield {}
            return
        address = hardware.cluster_address(cfg.address)
        own_ray.require_library()
        inherited = environment_here(job) if job and address is None else {}
        stack.callback(own_ray.forget_settings)  # last: it reads the restored environment
        stack.enter_context(process_state.some_standard_error())
        stack.enter_context(process_state.same_hooks())
        stack.enter_context(process_state.same_environment(lambda name: name in inherited or own_ray.is_setting(name)))
        with process_state.quiet_imports():
            if address is None:
                own_ray.set_environment(os.environ, inherited)
            import ray  # noqa: F401  # it reads the environment at once
        stack.enter_context(quiet())
        stack.enter_context(started(cfg) if address is None else joined(address))
        stopping.stop.check()
        yield inherited


def is_connected() -> bool:
    """Whether this process has a Ray. One that has not imported it has none."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@contextmanager
def joined(address: str) -> Iterator[None]:
    os.environ.setdefault("RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S", CLIENT_TIMEOUT_SECONDS)
    import ray

    joining.require_cluster(address)

    def join() -> None:
        with without_command_line():
            ray.init(address=address, logging_level=RAY_LOG_LEVEL, log_to_driver=False)

    with in_a_thread(join, f"ray.address: {address} could not be joined"):
        yield


@contextmanager
def started(cfg: RayConfig) -> Iterator[None]:
    import ray

    folder = own_ray.temporary_folder(os.environ)
    own_ray.require_threads()

    def start() -> None:
        # This thread's policy is that of every process of this Ray, but for the engine's threads (see VLLMEmbedder): a
        # batch task never preempts another as it wakes, and Ray's helpers wake hundreds of times a second.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with own_ray.on_loopback(), own_ray.without_dashboard(), without_command_line():
            ray.init(
                address="local",
                num_cpus=cfg.num_cpus or hardware.usable_cores(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=RAY_LOG_LEVEL,
                log_to_driver=False,
                _temp_dir=str(folder),
                _plasma_directory=own_ray.object_folder(folder.parent),
            )

    with in_a_thread(start, "ray: a Ray of its own could not be started"):
        yield


@contextmanager
def in_a_thread(connect: Callable[[], None], what: str) -> Iterator[None]:
    """Ray, connected and shut down by a thread of its own. `what` begins the error of a connection that fails.

    An interrupt of the caller waits until Ray's start is over, and so leaves no half of it. Ray sets its handler of SIGTERM in the
    main thread only; its handlers in C are replaced by the ones from before. Its processes end with the thread that started them."""
    import ray

    handlers, thread = process_state.SignalHandlers(), ThreadPoolExecutor(1, "ray")
    try:
        # An interrupt within `submit` can make the executor forget a thread that it has just started, and start a second one. So the
        # thread is there before it has anything to do with Ray.
        thread.submit(int).result()
        with one_line(what):
            thread.submit(connect).result()
        handlers.restore()
        yield
    finally:
        try:
            wait_to_the_end(thread.submit(ray.shutdown, wait_for_processes=True))
        finally:
            thread.shutdown()
            handlers.restore()


def wait_to_the_end(future: Future[None]) -> None:
    """Waits also where Ctrl-C is pressed again. The interrupt is raised afterwards."""
    interrupt = None
    while not future.done():
        try:
            wait([future])
        except KeyboardInterrupt as error:
            interrupt = error
    future.result()
    if interrupt is not None:
        raise interrupt


@contextmanager
def quiet() -> Iterator[None]:
    """Redirects what Ray prints to our own log. Ray prints coloured paragraphs about lost processes on standard output."""
    from ray._private import worker

    logger = logging.getLogger("ray")
    level, printer = logger.level, worker.print_to_stdstream
    logger.setLevel(RAY_LOG_LEVEL)
    worker.print_to_stdstream = note
    try:
        yield
    finally:
        logger.setLevel(level)
        worker.print_to_stdstream = printer


def note(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    log.info("%s", " ".join(data["lines"]))


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turns any error of Ray into a ClusterError of one line. Ray raises many types, often with many lines."""
    try:
        yield
    except BulkembedError:
        raise
    except Exception as error:
        stopping.stop.check()  # the same signal may have ended Ray's processes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(f"{what}: {reason[:MAX_REASON]}") from error


@contextmanager
def without_command_line() -> Iterator[None]:
    """Hides the command line of this process from Ray, which shows it on the dashboard and logs it. `--set` may hold secrets."""
    from ray._private import utils

    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "bulkembed"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


def environment_here(job: Job) -> dict[str, str]:
    """The environment that actors on this host need before they start, without `engine.env`, which only the actors get.

    An actor that lacks nothing takes one of the processes that Ray has started already. Otherwise it waits a second for a new process
    and for the agent that sets up environments. On a GPU host loading takes far longer, and only Ray knows the GPUs."""
    cfg = job.cfg
    if hardware.has_gpu():
        return {}
    cores = cfg.ray.num_cpus or hardware.usable_cores()
    placed = placement.fit(cfg.engine, cfg.ray.layout, [{"CPU": cores}])
    shared = cfg.engine.model_copy(update={"env": {}})
    return engine_environment(shared, placed.engine_cpus)


def here() -> tuple[set[int], int]:
    """The cores that this process may use, and the number of GPUs of the connected Ray."""
    import ray

    return os.sched_getaffinity(0), int(ray.cluster_resources().get("GPU", 0))
