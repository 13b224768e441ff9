"""`tiny-kws export --stream --int8` and `tiny-kws benchmark`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiny_kws.artefact.runtime import Classifier, StreamModel
from tiny_kws.data.prepared import PreparedData
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training.checkpoint import save_torch

from .helpers import SOURCE, exported, run_cli, sounds_of_many_levels, trained_like
from .test_streaming import causal_checkpoint

MODELS = SOURCE.parent / "models"


@pytest.fixture(scope="module")
def causal_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal network's checkpoint."""
    path = tmp_path_factory.mktemp("causal") / "best.pt"
    save_torch(path, causal_checkpoint().to_dict())
    return path


def test_export_of_a_stream(causal_path: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """One command writes the clip and the stream artefact, and says how near they are and how accurate."""
    done = run_cli("export", causal_path, "--out", tmp_path / "m.onnx", "--data", prepared.folder, "--stream", "40")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("probabilities differ by up to") == 2
    assert done.stdout.count("accuracy") == 2
    clip, stream = Classifier(tmp_path / "m.onnx"), StreamModel(tmp_path / "m.stream.onnx")
    assert stream.hop == 640
    assert clip.metadata.name == stream.metadata.name == "m"
    assert stream.metadata.validation.clips == len(prepared.rows("validation"))
    assert clip.labels == stream.labels == LABELS
    said = run_cli("info", stream.path)
    assert said.returncode == 0, said.stderr
    assert "hops of 40 ms (640 samples), looks 1005 ms behind its window" in said.stdout


@pytest.mark.skipif(not MODELS.exists(), reason="needs the whole repository")
@pytest.mark.parametrize(("options", "licence"), [([], "MIT"), (["--licence", "CC0"], "CC0")])
def test_the_licence_of_bundled_weights_is_known(tmp_path: Path, options: list[str], licence: str) -> None:
    """What is exported of a published checkpoint again states its licence, if no other is given."""
    done = run_cli("export", MODELS / "micro" / "best.pt", "--out", tmp_path / "again.onnx", *options)
    assert done.returncode == 0, done.stderr
    assert Classifier(tmp_path / "again.onnx").metadata.licence == licence


def test_stream_of_a_network_that_looks_ahead(checkpoint_path: Path, tmp_path: Path) -> None:
    """Asked to stream a DS-CNN, export says in one line why not, with status 2."""
    done = run_cli("export", trained_like(checkpoint_path), "--out", tmp_path / "m.onnx", "--stream", "40")
    assert done.returncode == 2
    assert "looks ahead" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "m.stream.onnx").exists()


def test_int8(checkpoint_path: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """The int8 artefact says so, is under 0.25 MB, and its embedding lies near the float one's."""
    from tiny_kws.evaluation.clip_sets import split_clips
    from tiny_kws.export import exporter as export
    from tiny_kws.training.checkpoint import load_checkpoint

    export_path = tmp_path / "m.int8.onnx"
    clips = split_clips(prepared, "validation")
    calibration = np.concatenate(list(clips.batches()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INT8_TOLERANCE", 1.0)  # the answers of random weights lie close together
        export.Exporter(load_checkpoint(trained_like(checkpoint_path)), clips).int8(export_path, calibration)
    small, whole = Classifier(export_path), Classifier(exported(trained_like(checkpoint_path)))
    assert (small.metadata.precision, small.metadata.calibration_clips) == ("int8", len(calibration))
    assert export_path.stat().st_size < 250_000
    audio = calibration[:20]
    ours, theirs = (c.session.run(["embedding"], {"audio": audio})[0] for c in (small, whole))
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


def test_a_stream_in_int8(causal_path: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """Step by step it answers nearly as in float, from a smaller file, also after twenty seconds."""
    from tiny_kws.evaluation.clip_sets import split_clips
    from tiny_kws.export import exporter as export
    from tiny_kws.training.checkpoint import load_checkpoint

    clips = split_clips(prepared, "validation")
    calibration = np.concatenate(list(clips.batches()))
    exporter = export.Exporter(load_checkpoint(causal_path), clips)
    paths = tmp_path / "m.int8.stream.onnx", tmp_path / "m.stream.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INT8_TOLERANCE", 1.0)  # the answers of random weights lie close together
        exporter.stream_int8(paths[0], 640, calibration)
    exporter.stream(paths[1], 640)
    small, whole = map(StreamModel, paths)
    assert (small.metadata.precision, small.metadata.calibration_clips) == ("int8", len(calibration))
    assert small.metadata.name == whole.metadata.name == "m"
    assert paths[0].stat().st_size < 0.6 * paths[1].stat().st_size
    audio = np.concatenate(list(calibration[:20]))
    ours, theirs = (model.stream().process(audio) for model in (small, whole))
    differences = np.abs(ours - theirs).max(1)
    assert 0 < differences.mean() < 0.03
    assert differences[-100:].mean() < 0.03


def test_export_writes_a_stream_in_int8(prepared: PreparedData, tmp_path: Path) -> None:
    """`--int8` with `--stream` writes both kinds in int8, each checked on the clips."""
    asked = ("--data", prepared.folder, "--stream", "40", "--int8")
    done = run_cli("export", MODELS / "micro" / "best.pt", "--out", tmp_path / "m.onnx", *asked)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.int8.onnx",
        "m.int8.stream.onnx",
        "m.onnx",
        "m.stream.onnx",
    ]
    assert done.stdout.count("accuracy") == 4


def test_int8_that_loses_accuracy_is_not_written(
    checkpoint_path: Path, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An int8 artefact that loses more than it may is refused with the loss, and nothing is written."""
    from tiny_kws.errors import KwsError
    from tiny_kws.evaluation.clip_sets import split_clips
    from tiny_kws.export import exporter as export
    from tiny_kws.training.checkpoint import load_checkpoint

    monkeypatch.setattr(export, "INT8_TOLERANCE", -1.0)
    exporter = export.Exporter(load_checkpoint(checkpoint_path), split_clips(prepared, "validation"))
    with pytest.raises(KwsError, match="points of accuracy"):
        exporter.int8(tmp_path / "m.int8.onnx", sounds_of_many_levels()[:32])
    assert not list(tmp_path.iterdir())


def test_benchmark(causal_path: Path, checkpoint_path: Path, tmp_path: Path) -> None:
    """The benchmark times clips, streams and the plain way in one run, as a table and as JSON."""
    clip = exported(trained_like(checkpoint_path))
    made = run_cli("export", causal_path, "--out", tmp_path / "m.onnx", "--stream", "80")
    assert made.returncode == 0, made.stderr
    models = [str(clip), str(tmp_path / "m.stream.onnx")]
    table = run_cli("benchmark", *models, "--repeats", "5")
    assert table.returncode == 0, table.stderr
    assert table.stdout.startswith("model ")
    assert "plain PyTorch" in table.stdout
    result = json.loads(run_cli("benchmark", *models, "--repeats", "5", "--json").stdout)
    rows = {row["name"]: row for row in result["models"]}
    assert result["processor"]
    for key in ("clip_p50_ms", "clip_p95_ms", "clips_per_s", "load_ms", "peak_memory_mb", "clip_times_faster"):
        assert rows[clip.name][key] > 0
    assert rows["m.stream.onnx"]["hop_ms"] == 80
    assert rows["m.stream.onnx"]["stream_cpu_ms_per_s"] > 0
    assert rows["plain PyTorch"]["clip_times_faster"] == rows["plain PyTorch"]["stream_times_faster"] == 1.0


def test_benchmark_of_something_else(tmp_path: Path) -> None:
    """A file that is no artefact is refused in one line."""
    (tmp_path / "notes.onnx").write_text("no model")
    done = run_cli("benchmark", tmp_path / "notes.onnx", "--repeats", "5")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "notes.onnx" in done.stderr
