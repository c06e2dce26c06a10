"""What workers ask the zygote: six requests, answered here or made events of a model."""

from __future__ import annotations

from collections.abc import Callable

from skserve.multi_model import protocol
from skserve.multi_model.entry import Entry
from skserve.multi_model.events import Closed, Connect, Event, Unanswered, Unload
from skserve.multi_model.processes import Process, Processes
from skserve.multi_model.protocol import Message, Peer

# Models on a page of GET /models, unless fewer are asked for, and the bytes of such a page.
PAGE = 100
PAGE_BYTES = protocol.MESSAGE_LIMIT // 2

# How many ends of processes are remembered, for those who ask a moment too late.
RECENT_EXITS = 100


class Control:
    """Takes requests about `entries`: `act` lets an event happen to one, `load` makes a new one."""

    def __init__(
        self,
        entries: dict[str, Entry],
        processes: Processes,
        act: Callable[[Entry, Event], None],
        load: Callable[[str, str, Peer], None],
    ) -> None:
        self._entries, self._processes, self._act, self._start = entries, processes, act, load
        self._recent_exits: dict[int, tuple[str, bool]] = {}  # how the last processes ended
        self._requests: dict[str, Callable[[Peer, Message], None]] = {
            "load": self._load,
            "unload": lambda peer, message: self._happens(peer, message, Unload(peer)),
            "connect": lambda peer, message: self._happens(peer, message, Connect(peer)),
            "describe": self._describe,
            "list": self._list,
            "exit_reason": self._exit_reason,
        }

    def handle(self, peer: Peer, message: Message) -> None:
        self._requests[message["do"]](peer, message)

    def ended(self, process: Process, how: str, out_of_memory: bool) -> None:
        """Tell those who wait for it, and those who will ask, how a process ended."""
        self._recent_exits[process.pid] = how, out_of_memory
        if len(self._recent_exits) > RECENT_EXITS:
            del self._recent_exits[next(iter(self._recent_exits))]
        for peer in process.exit_waiters:
            peer.answer({"status": 200, "said": how, "out_of_memory": out_of_memory})

    def _load(self, peer: Peer, message: Message) -> None:
        name = message["name"]
        if name in self._entries:
            peer.refuse(409, f"Model {name} is already registered.")
        else:
            self._start(name, message["url"], peer)

    def _happens(self, peer: Peer, message: Message, event: Event) -> None:
        entry = self._entries.get(message["name"])
        if entry is None:
            peer.refuse(404, f"Model not found: {message['name']}")
        else:
            self._act(entry, event)

    def _describe(self, peer: Peer, message: Message) -> None:
        entry = self._entries.get(message["name"])
        if entry is None or not entry.registered:
            peer.refuse(404, f"Model not found: {message['name']}")
        else:
            peer.answer({"status": 200, "models": [[entry.name, entry.url]]})

    def _list(self, peer: Peer, message: Message) -> None:
        after, limit = message["after"], min(message["limit"], PAGE)
        names = sorted(name for name, entry in self._entries.items() if entry.registered)
        names = [name for name in names if after is None or name > after]
        page: list[tuple[str, str]] = []
        size = 0
        for name in names[:limit]:
            url = self._entries[name].url
            size += 6 * (len(name) + len(url))  # as escaped JSON, at the most
            if page and size > PAGE_BYTES:
                break
            page.append((name, url))
        peer.answer({"status": 200, "models": page, "more": len(page) < len(names)})

    def _exit_reason(self, peer: Peer, message: Message) -> None:
        """Say how a process ended that a worker has found dead, or hanging: then it is killed."""
        entry = self._processes.owner(message["pid"])
        process = self._processes.of(entry) if entry else None
        if entry is None or process is None:
            how, out_of_memory = self._recent_exits.get(message["pid"], ("its process died", False))
            peer.answer({"status": 200, "said": how, "out_of_memory": out_of_memory})
            return
        process.exit_waiters.append(peer)
        self._act(entry, Unanswered() if message["hung"] else Closed())
