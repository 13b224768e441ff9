"""The words that a server listens for, from a folder of artefacts that is checked again while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..artefact.runtime import StreamModel
from ..config import DetectorConfig
from ..errors import KwsError, UsageError
from ..listening.decoder import check_share
from ..listening.detector import config_of
from ..words import is_word, label_of

LOOK_S = 2.0
"""The time between two checks of the folder."""
OnProblem = Callable[[str], None]
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Choice:
    """A model, and the settings for the words that it listens for."""

    model: StreamModel
    config: DetectorConfig


class Library:
    """Models by file, and which of them listens for each word; if two have a word, the first file's does.

    `files` are read once; `look` reads `folder` again. `thresholds` are by word, "" for every word. `on_problem` is
    called with one line if a file cannot be used; the model that was read from it before stays in use. Raises KwsError
    if a file cannot be used, or the folder cannot be read.
    """

    def __init__(
        self, files: Sequence[str | Path], folder: Path | None, thresholds: Mapping[str, float], on_problem: OnProblem
    ) -> None:
        self._on_problem = on_problem
        self._folder = folder
        self._thresholds = dict(thresholds)
        self._models: dict[Path, StreamModel] = {}
        self._stamps: dict[Path, Stamp] = {}
        for file in files:
            model = StreamModel(file)
            config_of(model)
            self._models[model.path] = model
        self._fixed = tuple(self._models)
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: is not a folder, expected one with stream artefacts (.onnx) for --models")
        self.look()
        for word in filter(None, self._thresholds):
            if label_of(word, self.words) is None and folder is None:
                raise UsageError(f"found a threshold for {word!r}, expected one of {', '.join(self.words)}")

    @property
    def models(self) -> list[StreamModel]:
        """All models, by the names of their files."""
        return list(self._models.values())

    @property
    def words(self) -> dict[str, StreamModel]:
        """The model that listens for each word."""
        found: dict[str, StreamModel] = {}
        for model in self.models:
            for word in self._decided(model):
                found.setdefault(word, model)
        return found

    def look(self) -> None:
        """Read the files that are new or changed in the folder, and forget those that are gone."""
        if self._folder is None:
            return
        found = sorted(self._folder.glob("*.onnx"))
        for path in [path for path in self._models if path not in found and path not in self._fixed]:
            del self._models[path]
            self._stamps.pop(path, None)
        for path in found:
            self._look_at(path)
        self._models = dict(sorted(self._models.items()))

    def _look_at(self, path: Path) -> None:
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._stamps.get(path) == stamp:
                return
            self._stamps[path] = stamp
            model = StreamModel(path)
            config_of(model)
        except OSError as error:
            self._on_problem(f"{path}: cannot be read ({error.strerror}); the previous version is kept")
        except KwsError as error:
            stays = "; the previous version is kept" if path in self._models else ""
            self._on_problem(f"{error}{stays}")
        else:
            self._models[path] = model

    def choose(self, names: Sequence[str] | None, thresholds: Mapping[str, float] | None = None) -> list[Choice]:
        """The models that are needed for `names` (by default all words), each with its words.

        `thresholds` of the stream take precedence over those of the server. Raises UsageError for an unknown word or an
        invalid threshold.
        """
        words = self.words
        wanted = {self._known(name, words) for name in names} if names else set(words)
        own = {self._known(name, words) if name else "": value for name, value in (thresholds or {}).items()}
        for name, value in own.items():
            check_share(value, f"the threshold for {name or 'every word'!r}")
        choices = []
        for model in dict.fromkeys(words.values()):
            mine = tuple(word for word, heard_by in words.items() if heard_by is model and word in wanted)
            if mine:
                choices.append(Choice(model, self._config(model, mine, own)))
        return choices

    def _known(self, name: str, words: Mapping[str, StreamModel]) -> str:
        found = label_of(name, list(words)) if isinstance(name, str) else None
        if found is None:
            raise UsageError(
                f"found the word {name!r}, expected one of {', '.join(words) or 'none: there is no model'}"
            )
        return found

    def _config(self, model: StreamModel, words: tuple[str, ...], own: Mapping[str, float]) -> DetectorConfig:
        config = config_of(model)
        thresholds = dict(config.thresholds)
        for asked in (self._thresholds, own):
            by_word = {label_of(name, words): value for name, value in asked.items() if name}
            for word in words:
                value = by_word.get(word, asked.get(""))
                if value is not None:
                    thresholds[word] = value
        return replace(config, words=words, thresholds=thresholds)

    @staticmethod
    def _decided(model: StreamModel) -> tuple[str, ...]:
        return tuple(config_of(model).words) or tuple(filter(is_word, model.labels))
