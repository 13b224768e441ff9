"""The app of a Space: what it says of a recording, and that it does so over HTTP, without any other network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.apps import EXAMPLES_FOLDER, space_folder
from tiny_kws.apps.picture import log_mel
from tiny_kws.apps.space import EXAMPLES, Analysis, Model, _summary, analyse, first_hour, load_models, part_of
from tiny_kws.artefact.runtime import Classifier
from tiny_kws.artefact.store import bundled_models
from tiny_kws.config import SAMPLE_RATE, FeatureConfig
from tiny_kws.errors import AudioError, install_hint
from tiny_kws.listening.decoder import Detection

from .helpers import COMMAND_LINE, command_line, environment, run_cli, speech_like

ONLY_THIS_COMPUTER = """
import os, sys


def watch(event, args):
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    if host not in (None, "127.0.0.1", "localhost", "0.0.0.0", b"127.0.0.1", ""):
        with open(os.environ["ASKED"], "a") as file:
            print(event, host, file=file)
        raise OSError("there is no network")


sys.addaudithook(watch)
"""


@dataclass
class Server:
    """A running app: how to call it, and the file that says what else it asked of the network."""

    client: Any
    url: str
    asked: Path

    def hear(self, path: Path | None, model: str = "listener", threshold: float = 0.98) -> Any:
        from gradio_client import handle_file

        given = None if path is None else handle_file(str(path))
        return self.client.predict(given, model, threshold, api_name="/hear")

    def refusal(self, path: Path | None) -> str:
        """What is said of a recording that cannot be heard."""
        with pytest.raises(Exception) as failure:  # noqa: PT011  (gradio_client's AppError)
            self.hear(path)
        return str(failure.value)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`tiny-kws demo --gradio` in a process of its own, which can reach nothing but this computer."""
    pytest.importorskip("gradio_client")
    from gradio_client import Client

    folder = tmp_path_factory.mktemp("server")
    command = [*command_line("demo", "--gradio", "--no-browser")]
    command[3] = ONLY_THIS_COMPUTER + COMMAND_LINE
    asked = folder / "asked.txt"
    env = {**environment(), "ASKED": str(asked), "GRADIO_TEMP_DIR": str(folder / "kept")}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" ")[0]
            assert url.startswith("http://127.0.0.1:")
            client = Client(url, verbose=False, download_files=str(folder / "got"), analytics_enabled=False)
            yield Server(client, url, asked)
            client.close()
        finally:
            process.terminate()


def heard_in(tmp_path: Path, path: Path, model: Model) -> tuple[Analysis, list[str]]:
    told: list[str] = []
    return analyse(path, model, model.threshold, tmp_path, told.append, lambda text: None), told


def test_picture_is_the_front_end_of_the_network() -> None:
    """The log-mel for the eye is what the causal front end computes, within 0.001."""
    import torch

    from tiny_kws.training.features import LogMel

    audio = speech_like(np.random.default_rng(0)).astype(np.float32)
    expected = LogMel(FeatureConfig(centered=False))(torch.from_numpy(audio))[0, 0].numpy()
    assert np.abs(log_mel(audio) - expected).max() < 1e-3


@pytest.mark.parametrize("n_samples", [1, 159, 160, 399, 16001])
def test_a_picture_of_any_length(n_samples: int) -> None:
    """A recording of any number of samples has a log-mel of at least one frame."""
    assert log_mel(np.zeros(n_samples, np.float32)).shape == (64, max(1, n_samples // 160))


def test_every_bundled_model_can_be_chosen(models: dict[str, Model]) -> None:
    """All bundled models are offered, the default one for streams first."""
    assert sorted(models) == sorted(bundled_models("clip"))
    assert next(iter(models)) == "listener"


def test_artefacts_beside_the_app_come_alone(tmp_path: Path, models: dict[str, Model]) -> None:
    """A folder with artefacts offers these and no bundled ones."""
    for artefact in (models["listener"].classifier.path, models["listener"].listener.path):
        (tmp_path / f"mine{artefact.name.removeprefix('listener')}").write_bytes(artefact.read_bytes())
    found = load_models(tmp_path)
    assert list(found) == ["mine"]
    assert found["mine"].listener.metadata.kind == "stream"


@pytest.mark.parametrize(("window", "span"), [(16_000, "second"), (24_000, "1.5 seconds"), (32_000, "2 seconds")])
def test_a_window_is_called_by_its_length(window: int, span: str, models: dict[str, Model]) -> None:
    """What the part of a recording is called that is classified follows from the network's window."""
    model = Model(cast(Classifier, SimpleNamespace(window=window)), models["listener"].listener)
    assert model.span == span


def test_hears_a_word(tmp_path: Path, models: dict[str, Model]) -> None:
    """Of a recording of one word it tells the word, and finds it once."""
    heard, told = heard_in(tmp_path, EXAMPLES_FOLDER / "yes.wav", models["listener"])
    assert next(iter(heard.top)) == "yes"
    assert [event.label for event in heard.events] == ["yes"]
    assert told == []
    for picture in (heard.close_up, heard.timeline):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "No word was detected; in the second from 1.00 s: unknown (1.00)."),
        (["yes"], "1 detection: **yes**; in the second from 1.00 s: unknown (1.00)."),
        (["go"] * 9, f"9 detections: **{'go, ' * 8}…**; in the second from 1.00 s: unknown (1.00)."),
    ],
)
def test_the_headline_names_the_words_that_were_found(words: list[str], expected: str) -> None:
    """Where words were found they come first, whatever the loudest second is called."""
    events = [Detection(word, 1.0, 1.5, 0.9) for word in words]
    heard = Analysis({"unknown": 1.0}, 1.0, "second", events, Path(), Path())
    assert _summary(heard) == expected


def test_hears_at_most_an_hour() -> None:
    """Of a recording of more than an hour the first hour is heard, and that is said once."""
    told: list[str] = []
    blocks = [np.zeros(SAMPLE_RATE * 700, np.float32)] * 6
    assert sum(map(len, first_hour(blocks, told.append))) == 3600 * SAMPLE_RATE
    assert told == ["The recording is longer than 60 minutes: only its beginning was processed."]
    assert sum(map(len, first_hour([np.zeros(SAMPLE_RATE * 3600, np.float32)], told.append))) == 3600 * SAMPLE_RATE
    assert len(told) == 1


def test_part_of_a_recording() -> None:
    """A part is cut across blocks, and is shorter where the recording is."""
    audio = np.arange(4 * SAMPLE_RATE, dtype=np.float32)
    blocks = np.array_split(audio, 7)
    assert np.array_equal(part_of(blocks, 0.5, 2.25), audio[8000:36000])
    assert np.array_equal(part_of(blocks, 3.5, 9.0), audio[56000:])


def test_examples_are_there() -> None:
    """Every example that the app offers is shipped."""
    assert [name for name in EXAMPLES if not (EXAMPLES_FOLDER / name).is_file()] == []


def test_over_http(server: Server) -> None:
    """A client gets labels, pictures and detections of a recording over HTTP."""
    label, log_mel_image, timeline, table, summary = server.hear(EXAMPLES_FOLDER / "down.wav")
    assert label["label"] == "down"
    assert len(label["confidences"]) == 5
    assert [row[0] for row in table["data"]] == ["down"]
    assert "1 detection" in summary
    for picture in (log_mel_image, timeline):
        assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_bad_recordings_over_http(server: Server, tmp_path: Path) -> None:
    """No recording, one without samples, and what is no sound are refused in a line; the app goes on."""
    empty, text = tmp_path / "empty.wav", tmp_path / "notes.wav"
    sf.write(empty, np.zeros(0), SAMPLE_RATE)
    text.write_text("buy milk\n", encoding="utf-8")
    assert "There is no recording" in server.refusal(None)
    assert "empty.wav: holds no samples" in server.refusal(empty)
    assert "notes.wav: found no sound in it" in server.refusal(text)
    assert server.hear(EXAMPLES_FOLDER / "yes.wav")[0]["label"] == "yes"


@pytest.mark.slow
def test_an_hour_over_http(server: Server, tmp_path: Path) -> None:
    """A recording of more than an hour is heard to its first hour."""
    word, rate = sf.read(EXAMPLES_FOLDER / "yes.wav")
    with sf.SoundFile(tmp_path / "long.ogg", "w", rate, 1) as file:
        for second in range(3700):
            file.write(np.resize(np.pad(word, (0, rate)), rate) if second % 600 == 10 else np.zeros(rate))
    *_, table, _ = server.hear(tmp_path / "long.ogg")
    assert [round(float(row[2])) // 600 for row in table["data"]] == [0, 1, 2, 3, 4, 5]


def test_the_page_names_no_other_host(server: Server) -> None:
    """Neither the page's links nor the app ask anything of the network."""
    with urlopen(server.url) as answer:
        page = answer.read().decode()
    assert re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://(?!127\.0\.0\.1|localhost)[^"]*"', page) == []
    assert not server.asked.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_it_well() -> None:
    """Ctrl-C is how the app is ended: status 0, nothing said."""
    pytest.importorskip("gradio")
    command = command_line("demo", "--gradio", "--no-browser")
    listened = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command[3] = listened + command[3]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        started = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=120)
    assert started.startswith("http://127.0.0.1:"), complaints
    assert (process.returncode, complaints) == (0, "")


def test_without_gradio_it_says_what_to_install() -> None:
    """Without the extra, one line says which to install."""
    done = run_cli("demo", "--gradio", "--no-browser", blocked=("gradio",))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"tiny-kws: this command needs gradio, which is not installed; {install_hint('demo')}\n")


def test_a_taken_port_is_an_error(server: Server) -> None:
    """A port in use is one line and status 1."""
    pytest.importorskip("gradio")
    port = server.url.rstrip("/").rpartition(":")[2]
    done = run_cli("demo", "--gradio", "--no-browser", "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tiny-kws: port {port} of 127.0.0.1 cannot be used")


def test_unreadable_recordings_raise(tmp_path: Path, models: dict[str, Model]) -> None:
    """What is no sound is an AudioError before anything is drawn."""
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(AudioError, match="is empty"):
        heard_in(tmp_path, tmp_path / "x.wav", models["listener"])


def test_the_space_only_calls_the_app() -> None:
    """app.py of the Space holds nothing but the call, and the Space is of the gradio it is tested with."""
    pytest.importorskip("gradio")
    folder = space_folder()
    assert len((folder / "app.py").read_text(encoding="utf-8").splitlines()) < 12
    assert f"sdk_version: {version('gradio')}\n" in (folder / "README.md").read_text(encoding="utf-8")
