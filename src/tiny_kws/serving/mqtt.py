"""Events as MQTT messages: topic PREFIX/WORD, with the event as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from ..errors import UsageError
from ..listening.actions import utc_text
from .sessions import Heard

PORT, TLS_PORT = 1883, 8883
PREFIX = "tiny-kws"
QUEUED = 1000
"""How many messages wait while the broker cannot be reached; beyond that the oldest are dropped."""
OnProblem = Callable[[str], None]


class Publisher:
    """Publishes to `mqtt://[USER:PASSWORD@]HOST[:PORT][/PREFIX]` (mqtts for TLS) in a thread; connects again when lost.

    PREFIX/status is `online` or `offline`. Raises UsageError for an invalid address.
    """

    def __init__(self, address: str, on_problem: OnProblem) -> None:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("mqtt", "mqtts"):
            raise UsageError(
                "--mqtt: found no address of a broker, expected mqtt://[USER:PASSWORD@]HOST[:PORT][/PREFIX]"
            )
        self.prefix = parts.path.strip("/") or PREFIX
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(QUEUED)
        client.will_set(f"{self.prefix}/status", "offline", retain=True)
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()
        where = f"the MQTT broker at {host}"
        client.on_connect = lambda c, u, f, code, p: self._connected(where, code, on_problem)
        client.on_connect_fail = lambda c, u: on_problem(f"{where} cannot be reached; trying again")
        client.connect_async(host, port or (TLS_PORT if parts.scheme == "mqtts" else PORT))
        client.loop_start()

    def _connected(self, where: str, code: ReasonCode, on_problem: OnProblem) -> None:
        if code.is_failure:
            on_problem(f"{where} refused the connection ({code}); check name and password")
        else:
            self._client.publish(f"{self.prefix}/status", "online", retain=True)

    def __call__(self, heard: Heard) -> None:
        """Publish an event; never waits."""
        word = re.sub(r"[/+#\\0]", "_", heard.event.label)
        self._client.publish(f"{self.prefix}/{word}", heard.event.to_json(time=utc_text(heard.time)), qos=1)

    def close(self) -> None:
        """Publish `offline` and disconnect."""
        self._client.publish(f"{self.prefix}/status", "offline", retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()
