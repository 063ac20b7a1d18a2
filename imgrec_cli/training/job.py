"""The processes of one training on several hosts: who they are, what they agree on, and how one is missed.

JAX's distributed runtime finds and watches them; there is no protocol of our own. Keras is not imported here, because
peers have to be met before the backend starts.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import Config
from imgrec_cli.errors import ImgrecError, InputError, MissingExtraError, PeerLostError, install_command
from imgrec_cli.machine import native_messages_hidden, peers_announced
from imgrec_cli.progress import Listener, Warn

LOST = re.compile(
    r"Gloo|NCCL|coordination|distributed service|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|Connection reset"
)
_WAIT_MS = 24 * 3600 * 1000  # for what another process does meanwhile, such as packing; one that died is missed earlier
_CONNECT_SECONDS = 300  # hosts of a scheduler do not start at once
_EXCHANGED_BYTES = 1 << 26  # at once, of all processes together: it lies on every device


@dataclass
class Job:
    """This process is number `index` of `count`; the first one leads: it alone writes the run."""

    index: int = 0
    count: int = 1
    _said: int = 0

    @property
    def leads(self) -> bool:
        return self.index == 0

    def said_by_leader(self, text: str = "") -> str:
        """A text of the leader, on every process. Waits for the leader as long as it lives."""
        if self.count == 1:
            return text
        self._said += 1
        key = f"imgrec/{self._said}"
        with lost_peers_said():
            if self.leads:
                _client().key_value_set(key, text)
                return text
            return str(_client().blocking_key_value_get(key, _WAIT_MS))

    def decided_by_leader(self, value: bool) -> bool:
        """A decision that depends on a clock, the same on every process."""
        return self.said_by_leader("yes" if value else "") == "yes"

    def any(self, *values: bool) -> list[bool]:
        """For each value whether it is true on any process."""
        if self.count == 1:
            return list(values)
        from jax.experimental import multihost_utils

        with lost_peers_said():
            found = multihost_utils.process_allgather(np.array(values, np.uint8))
        table = np.asarray(found).reshape(self.count, len(values))
        return [bool(column.any()) for column in table.T]

    def exchange(self, data: bytes) -> list[bytes]:
        """What every process says, in their order, on all of them. Waits for each as long as it lives."""
        if self.count == 1:
            return [data]
        from jax.experimental import multihost_utils

        def gathered(values: bytes) -> NDArray[np.uint8]:
            """uint8 [processes, bytes]; all have to give as many."""
            found = multihost_utils.process_allgather(np.frombuffer(values, np.uint8))
            return np.asarray(found).reshape(self.count, len(values))

        self._said += 1
        with lost_peers_said():
            _client().wait_at_barrier(f"imgrec-exchange-{self._said}", _WAIT_MS)  # a collective waits for minutes only
            lengths = [int.from_bytes(row.tobytes(), "big") for row in gathered(len(data).to_bytes(8, "big"))]
            longest, chunk, told = max(lengths), _EXCHANGED_BYTES // self.count, [b""] * self.count
            for start in range(0, longest, chunk):
                size = min(chunk, longest - start)
                for index, row in enumerate(gathered(data[start : start + size].ljust(size, b"\0"))):
                    told[index] += row.tobytes()
        return [text[:length] for text, length in zip(told, lengths, strict=True)]

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """A block that the leader has done before the others begin it."""
        if not self.leads:
            self.said_by_leader()
        yield
        if self.leads:
            self.said_by_leader()

    def require_same(self, what: str, value: str, hint: str) -> None:
        """Raise InputError on the processes where `value` is not the leader's. None goes on before all have said it."""
        if self.exchange(value.encode())[0] != value.encode():
            raise InputError(f"process {self.index} of {self.count} has {what} than process 0", hint)

    def listener(self, on_event: Listener) -> Listener:
        """What is told: all of it by the leader, only warnings by the others."""
        return on_event if self.leads else lambda event: on_event(event) if isinstance(event, Warn) else None

    def leave(self) -> None:
        """Wait for all and part: what remains is the leader's alone."""
        if self.count > 1:
            import jax

            with lost_peers_said():
                _client().wait_at_barrier("imgrec-end", _WAIT_MS)
                jax.distributed.shutdown()


def join(config: Config) -> Job:
    """Meet the peers that the environment announces; alone where it names none, or the config wants one device.

    JAX knows SLURM, Open MPI and Kubernetes (with its package `kubernetes`) by their variables; elsewhere
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say it. Raises InputError where they do not come, and
    where the backend is one that trains alone.
    """
    if config.distribute.strategy == "none" or not peers_announced():
        return Job()
    if config.runtime.backend != "jax":  # each would train alone, and write a run of its own
        raise InputError(
            "this process was started as one of several, and only the backend jax trains with others",
            "set runtime.backend=jax, or distribute.strategy=none where each is to train alone",
        )
    if importlib.util.find_spec("jax") is None:
        raise MissingExtraError("training on several hosts needs jax, which is not installed", install_command("jax"))
    if config.runtime.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    if jax.distributed.is_initialized():
        raise InputError("this process has trained with its peers already", "start new processes on every host")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    numbers = {key: os.environ.get(f"JAX_{key.upper()}") for key in ("num_processes", "process_id")}
    try:
        with native_messages_hidden():
            jax.distributed.initialize(
                **{key: int(text) for key, text in numbers.items() if text is not None},
                heartbeat_timeout_seconds=config.distribute.heartbeat,
                initialization_timeout=_CONNECT_SECONDS,
                shutdown_timeout_seconds=config.distribute.heartbeat,
            )
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the other processes of this job are not reached: {_first_line(error)}",
            "every host has to reach the address of process 0, and to know JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES "
            "and JAX_PROCESS_ID where no scheduler that JAX knows starts it (docs/clusters.md)",
        ) from error
    return Job(jax.process_index(), jax.process_count())


@contextmanager
def lost_peers_said() -> Iterator[None]:
    """Raise PeerLostError where what the block meets is how JAX tells of a process that died or hangs."""
    try:
        yield
    except ImgrecError:
        raise
    except Exception as error:  # the classes differ: of jaxlib, and plain ValueError from the libraries below it
        if not LOST.search(str(error)):
            raise
        raise PeerLostError(
            f"another process of this training was lost: {_first_line(error)}",
            "start the job again on all hosts with imgrec train --resume RUN; it goes on from the last checkpoint",
        ) from error


def fingerprint(config: Config) -> str:
    """What has to be the same on every host: all of a config but where its images lie and what the machine is."""
    content = config.model_dump(mode="json", exclude={"data", "runtime"})
    return json.dumps(content, sort_keys=True)


def _client() -> Any:
    from jax._src.distributed import global_state  # what Orbax uses too: there is no public way to say a text

    return global_state.client


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
