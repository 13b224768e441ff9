"""Starts a server and runs it until it is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from . import wyoming
from .library import LOOK_S
from .sessions import Core

Told = Callable[[str], None]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """Where a server listens. `http` None leaves HTTP out; `names` are further ones that a browser may use for it."""

    host: str = "127.0.0.1"
    port: int = wyoming.PORT
    http: int | None = None
    names: tuple[str, ...] = ()
    token: str | None = None
    is_announced: bool = True

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach it."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def known_names(self) -> frozenset[str]:
        """The names by which a browser may call it; with any other, a foreign page has taken this address."""
        name = socket.gethostname().lower()
        own = set() if self.is_local else {self.host, name, f"{name}.local", *_addresses(name)}
        return LOOPBACK | own | {given.lower() for given in self.names}


def _addresses(name: str) -> set[str]:
    with suppress(OSError):
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    return set()


async def serve(core: Core, address: Address, on_problem: Told, on_ready: Told) -> None:
    """Serve until SIGINT or SIGTERM. Raises UsageError if an address is in use."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises
            loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        server = await wyoming.start(core, address.host, address.port, on_problem)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        on_ready(f"Wyoming at {address.host}:{port}: {', '.join(core.library.words) or 'no words yet'}")
        if address.http is not None:
            from .http import start  # noqa: PLC0415

            runner = await start(core, address.host, address.http, address.known_names, address.token)
            stack.push_async_callback(runner.cleanup)
            on_ready(f"HTTP at http://{address.host}:{runner.addresses[0][1]}/")
        if address.is_announced and not address.is_local:
            await _announce(stack, address.host, port, on_problem)
        looking = asyncio.create_task(_look(core))
        stack.callback(looking.cancel)
        await stopped.wait()


async def _look(core: Core) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        core.look()


async def _announce(stack: AsyncExitStack, host: str, port: int, on_problem: Told) -> None:
    """Announce the server, so that Home Assistant finds it by itself."""
    from zeroconf import Error  # noqa: PLC0415
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf  # noqa: PLC0415

    found = [entry for entry in _addresses(socket.gethostname()) if not ip_address(entry).is_loopback]
    addresses = [host] if host not in ("0.0.0.0", "::") else found  # noqa: S104
    name = hashlib.sha256(f"{socket.gethostname()}:{port}".encode()).hexdigest()[:12]
    kind = "_wyoming._tcp.local."
    info = AsyncServiceInfo(kind, f"tiny-kws-{name}.{kind}", port=port, parsed_addresses=addresses)
    try:
        zeroconf = AsyncZeroconf()
        stack.push_async_callback(zeroconf.async_close)
        await zeroconf.async_register_service(info)
    except (Error, OSError) as error:
        on_problem(f"the server cannot be announced by zeroconf ({error}); enter its address in Home Assistant")
