"""Notices when the servers of a Ray cluster are gone: Ray waits a minute, and then ends this process."""

import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

EVERY_S = 1.0  # between two looks
SILENT_S = 30.0  # until a server that neither answers nor refuses is gone: its machine may be
NOTICED_S = 10.0  # for this process to stop and to leave Ray; measured: 5
Address = tuple[str, int]


def goes_on(why: str) -> str:
    """What is left after an end that nobody wanted, and the command that goes on."""
    command = shlex.join(["ddbench", *sys.argv[1:]])
    return f"\n{why}. Finished jobs are kept; the same command goes on:\n  {command}"


def refuses(address: Address, seconds: float = 5.0) -> bool | None:
    """Whether no process listens there; None where nothing at all is heard."""
    try:
        socket.create_connection(address, seconds).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return None
    return False


class HeadWatch:
    """Stops this process as Ctrl-C does when a server is gone; `lost` says which."""

    def __init__(self, servers: Mapping[str, Address]) -> None:
        """Watch, from `with` on, what listens at these addresses, each by what to call it."""
        self.servers = servers
        self.scratch: Path | None = None  # a folder that goes with this process
        self.lost: str | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head", daemon=True)

    def __enter__(self) -> "HeadWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Watch no longer."""
        self._left.set()
        self._thread.join()

    def gone(self) -> bool:
        """Whether a server is gone, as far as one look tells."""
        for name, address in self.servers.items():
            if self.lost is None and refuses(address):
                time.sleep(EVERY_S / 5)  # a queue of connections may have been full
                if refuses(address):
                    self.lost = f"{name} died: nothing answers at {address[0]}:{address[1]}"
        return self.lost is not None

    def check(self) -> None:
        """Stop as Ctrl-C does if a server is gone: what its end looks like is no matter of any job."""
        if self.gone():
            raise KeyboardInterrupt

    def _watch(self) -> None:
        heard = dict.fromkeys(self.servers, time.monotonic())
        while not self._left.wait(EVERY_S):
            now = time.monotonic()
            heard |= {name: now for name, address in self.servers.items() if refuses(address) is False}
            for name, last in heard.items():
                if now - last > SILENT_S:
                    host, port = self.servers[name]
                    self.lost = f"{name} is silent: nothing was heard of {host}:{port} for {SILENT_S:.0f} s"
            if self.lost or self.gone():
                os.kill(os.getpid(), signal.SIGINT)
                if not self._left.wait(NOTICED_S):  # it waits inside Ray for an answer that does not come
                    if self.scratch:
                        shutil.rmtree(self.scratch, ignore_errors=True)
                    print(goes_on(str(self.lost)), flush=True)
                    os._exit(1)  # what Ray started here goes with it
                return
