"""The gunicorn master: how workers start, how they fail, and how new connections are stopped.

It overrides methods that gunicorn does not document and may change in any release; read them again
before raising the pin.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from contextlib import suppress
from typing import Any

from gunicorn import arbiter
from gunicorn.errors import HaltServer

# The signals that end a server.
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

# A filter for a listening socket, in the words of the kernel: what asks for a new connection is
# thrown away (byte 13 of TCP's header, its flags, says SYN); all else passes.
_SO_ATTACH_FILTER = 26
_NO_SYN = struct.pack(
    "=" + 4 * "HBBI",
    *(0x30, 0, 0, 13),  # load byte 13
    *(0x45, 0, 1, 0x02),  # unless it has SYN, leave out what follows
    *(0x06, 0, 0, 0),  # drop it
    *(0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


class Arbiter(arbiter.Arbiter):  # type: ignore[misc]
    """gunicorn's master, which stops only once where several workers fail to start.

    gunicorn takes a worker that exits with 3 or 4 for one that cannot start, but a script can end
    its process with any status. Here a worker says that it cannot start: `app.cannot_start`.
    """

    # Statuses that no process ends with: the system keeps their last eight bits.
    WORKER_BOOT_ERROR, APP_LOAD_ERROR = 0x103, 0x104

    _halting = False

    def __init__(self, app: Any) -> None:
        self._ended: dict[int, os.waitid_result] = {}  # how workers ended, until they are reaped
        super().__init__(app)

    def init_signals(self) -> None:
        """Listen to every signal, also to those that a script blocked while it was loaded."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def stop(self, graceful: bool = True) -> None:
        """Drop new SYNs in the kernel, then have the workers accept what is queued.

        The kernel would make, and then reset, a connection that comes between a worker's last look
        and the end of the socket. Its client asks again a second later, and is refused.
        """
        self._halting = True
        if not (self.reexec_pid or self.master_pid):  # else another master has the socket too
            code = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
            program = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(code))
            for listener in self.LISTENERS:
                with suppress(OSError):  # a kernel without filters
                    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        super().stop(graceful)

    def unplanned(self, worker: Any, out_of_memory: bool) -> str:
        """Return why a worker ended that was not told to, as `series.ENDS` calls it, or "".

        `out_of_memory` says that the kernel has ended a process for memory since the last end.
        """
        ended = self._ended.pop(worker.pid, None)
        if worker.aborted:
            return "hang"
        if self._halting or (ended and (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)):
            return ""
        killed = ended is not None and ended.si_status == signal.SIGKILL
        return "out_of_memory" if killed and out_of_memory else "crash"

    def murder_workers(self) -> None:
        """Called at every turn of the loop, so that a dead zygote is noticed as well."""
        self.app.mind()
        super().murder_workers()

    def spawn_worker(self) -> Any:
        """Fork a worker, with the signals held back that it would lose until it listens to them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            return super().spawn_worker()
        except SystemExit as end:  # in the worker
            if end.code in (self.WORKER_BOOT_ERROR, self.APP_LOAD_ERROR):
                self.app.cannot_start("A worker cannot start; the log says why.")
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reap_workers(self) -> None:
        """Note which workers have ended, and end all where one has said that it cannot start."""
        for pid in self.WORKERS:
            with suppress(ChildProcessError):
                # WNOWAIT leaves them to gunicorn, which keeps the exit status alone, not how.
                look = os.WEXITED | os.WNOHANG | os.WNOWAIT
                if (ended := os.waitid(os.P_PID, pid, look)) is not None:
                    self._ended[pid] = ended
        super().reap_workers()
        if not self._halting and self.app.start_failed():
            self._halting = True
            raise HaltServer("Worker failed to boot.", 1)
