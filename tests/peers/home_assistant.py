"""Home Assistant, headless, against a server of wake words: run by pytest in an environment of its own.

`TINY_KWS_PORT` is the server's, `TINY_KWS_SOUND` a WAV of 16 kHz in which "yes" is said.
"""

import asyncio
import os
import wave

import pytest
from homeassistant.components import wake_word
from homeassistant.config_entries import SOURCE_USER
from homeassistant.setup import async_setup_component

PORT = int(os.environ["TINY_KWS_PORT"])


async def spoken():
    """Chunks as a satellite's microphone gives them but six times as fast, with their times in ms."""
    with wave.open(os.environ["TINY_KWS_SOUND"]) as file:
        data = file.readframes(file.getnframes()) + bytes(64_000)
    for i in range(0, len(data), 2048):
        yield data[i : i + 2048], i // 32
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _sockets(socket_enabled):
    return


async def test_config_flow_words_and_detection(hass):
    """The config flow finds the server, its words are listed, and the entity detects one in real sound."""
    assert await async_setup_component(hass, "homeassistant", {})
    flow = await hass.config_entries.flow.async_init("wyoming", context={"source": SOURCE_USER})
    done = await hass.config_entries.flow.async_configure(flow["flow_id"], {"host": "127.0.0.1", "port": PORT})
    assert done["type"] == "create_entry", done
    assert done["title"] == "tiny-kws"
    await hass.async_block_till_done()
    (entity_id,) = hass.states.async_entity_ids("wake_word")
    entity = wake_word.async_get_wake_word_detection_entity(hass, entity_id)
    words = {word.id: word for word in await entity.get_supported_wake_words()}
    assert words["yes"].phrase == "yes"
    for _ in range(2):
        found = await entity.async_process_audio_stream(spoken(), "yes")
        assert found is not None
        assert found.wake_word_id == "yes"
        assert 1000 < found.timestamp < 2300
    assert await entity.async_process_audio_stream(spoken(), "no") is None
