"""The numbers that documents may hold outside of what `scripts/write_figures.py` writes, each with its reason.

Whatever was measured has no place here: it belongs into a committed file and a marked block. `Log` is for what was
measured once and is told in docs/LOG.md, under the heading named, with the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Log:
    """The heading in docs/LOG.md under which the same numbers stand."""

    heading: str


EVERYWHERE = {
    r"Python 3\.10": "the oldest Python",
    r"SHA-256|bfloat16|float32|TF32|AVX-512|H200": "names",
    r"(macro-)?\*?F1\b": "a name",
    r"Pete Warden 2018|et al\. \d{4}": "a publication",
    r"arXiv:\d{4}\.\d{5}": "a publication",
    r"CC0|CC BY(-NC-SA)? 4\.0|MPL 2\.0|Apache 2\.0": "licences",
    r"ESP32": "a name",
    r"MP3|M4A": "formats",
    r"Speech Commands v0\.02": "the data set's version",
    r"\b(8|16|64)-bit|int8": "a sample's or an integer's width",
    r"95 % intervals?": "the level of every interval",
}
"""Patterns, in every document."""

FRONT_END = "the front end's settings, config.py"
ARITHMETIC = "arithmetic, worked out where it stands"

ON_PAGE: dict[str, dict[str, str | Log]] = {
    "README.md": {
        "2 GB for PyTorch; a GPU": "the size of PyTorch's wheels with CUDA",
        "| Languages of typed words | 5 | English | those of its speech synthesiser | 9 |": "enrolment/spoken.py; the "
        "README of Porcupine",
    },
    "CONTRIBUTING.md": {"Exit status 1 is a failed job, 2 is wrong use": "the command line's convention"},
    "models/README.md": {
        "four of 0.8 to 1.15 million parameters": "rounded from the log, Seven minutes on a GPU",
        "( 0.012) for 33 to 39 epochs": Log("Seven minutes on a GPU"),
        "a of 30 epochs": Log("Is it capacity, is it noise?"),
        ": 55 epochs": Log("Windows: the sizes trained in earnest"),
        "and 10 with them at 0.002": Log("Is it capacity, is it noise?"),
        "for , 40 with that as teacher": Log("Micro and small without dropout, masks and smoothing"),
        "18 with the 55 alone": Log("The sizes"),
        "then 7 at 0.003": Log("Small, trained on"),
        "and 14 at 0.008": Log("Micro and small without dropout, masks and smoothing"),
        "a training of 36 epochs": Log("Phrases near the keywords, and a listener of the shape of base"),
        "dropout of 0.1, masks, and labels smoothed by 0.05": Log(
            "Less of what keeps a network from learning by heart"
        ),
        "learning rates of 0.004 or less": Log("Less of what keeps a network from learning by heart"),
        "answers from 0.08 s after a word on": Log("A listener that waits for what follows, in three sizes"),
    },
    "docs/compare.md": {"in steps of one in 256": "numbers of eight bits"},
    "docs/device.md": {
        "From version 1.29 on": "a version of onnxruntime",
        "with ranges from 512 training clips": "export/exporter.py, CALIBRATION_CLIPS",
        "more than 0.3 points": "the limit of export/exporter.py",
        "aligned to 16 bytes": "the header as it is written",
        "clipped to -128..127": "the range of such integers",
        "16 kHz, mono, samples in [-1, 1]: divide integers by 32768": FRONT_END,
        "Frames of 400 samples, one every 160": FRONT_END,
        "The FFT of length 400 and the squared magnitude of its 201 values. Not 512": FRONT_END,
        "64 triangular filters": FRONT_END,
        "from 20 to 7600 Hz": FRONT_END,
        "logarithm of (that + 0.000001)": FRONT_END,
        "A second has 101 frames": FRONT_END,
        "A second has 100 frames": FRONT_END,
        "every 100 ms": "advice",
        "about 23,000 parameters instead of 276,000": "TRUNK_SIZES; tests/test_convert_command.py counts",
        "192 to 272 frames": "of 10 to 20 vectors; tests/test_convert_command.py counts",
        "Run it every 80 ms": "the hop of the trunk",
        "reaches 0.5": "the threshold of every word, enrolment/head.py",
        "waits 700 ms": "DetectorConfig, refractory_ms",
    },
    "docs/first-voice-command.md": {
        "probability of the word at that moment, from 0 to 1": "what a probability is",
        "still compatible with 22 per hour": "of no alarm in a sixth of an hour, by Poisson: -6 ln 0.025",
    },
    "docs/how-it-works.md": {
        "From 0.08 s after": "listening/pause.py, SETTLING_MS",
        "by 6 dB on average": "listening/pause.py, PAUSE_DB",
        "16,000 times a second: samples, numbers from -1 to 1": FRONT_END,
        "half the rate, 8 kHz,": FRONT_END,
        "below 8 kHz": FRONT_END,
        "25 ms (400 samples)": FRONT_END,
        "one every 10 ms": FRONT_END,
        "201 frequencies, from 0 to 8 kHz in steps of 40 Hz": FRONT_END,
        "200 from 300 Hz easily and 6,000 from 6,100 Hz hardly": "an example of the mel scale",
        "64 triangular filters": FRONT_END,
        "into 64 bands": FRONT_END,
        "64 bands by 100 frames": FRONT_END,
        "With 160 channels in and out, a 3 x 3 convolution has 3 x 3 x 160 x 160 = 230,400 weights": ARITHMETIC,
        "(*depthwise*, 3 x 3 x 160)": ARITHMETIC,
        "(*pointwise*, 160 x 160), it takes 27,040 weights": ARITHMETIC,
        "A probability of 0.9": "an example",
        "an answer every 40 ms": "the hop of the bundled stream artefacts",
    },
    "docs/measure.md": {
        "and 0.5 s after its end": "the rule, evaluation/streams.py",
        "For 0.1 per hour": "an example",
        '"10 dB at 1 false alarm per hour"': "an example",
        "gives this rate at 10 dB": "an example",
        "recorded below 11 kHz": "audio.py, LOW_RATE",
    },
    "docs/home-assistant.md": {
        "that send 64 ms at a time": "benchmarks/serving.py, CHUNK",
        "99th percentile of the time": "benchmarks/serving.py",
    },
    "docs/own-words.md": {
        "64 numbers every 80 ms": "the trunk, training_config.py",
    },
    "docs/files-and-streams.md": {
        "within 1e-3": "the tolerance of tests/test_web.py",
        "one row every 40 ms": "the hop of the bundled stream artefacts",
        "`--pause 280`": "an example of the option",
        "0.36 s later": "listening/pause.py: the pause and SETTLING_MS",
    },
    "docs/results.md": {
        "window every 100 ms": "evaluation/speed.py, WINDOW_STEP_S",
        "Of the 25 words": "the data set's words",
    },
    "docs/style.md": {
        "40 ms for example": "an example",
        "from 0 to 1": "what a probability is",
        "Of every label, 0 to 1": "an example",
    },
    "docs/train.md": {
        "80 % go to training and 10 % to each of the others": "word_folders.py, SHARES",
        "(`--window-ms`, 1000 by default)": "training_config.py, PrepareConfig",
        "2.5 GB": "the size of the archives, data/download.py",
        "from the 25 others": "the data set's words",
        "80 minutes of them": "what scripts/near_speech.py makes; it prints the same",
        "a whole number of 20 ms": "the stride of the network, training_config.py",
        "one each 20 ms": "the stride of the network, training_config.py",
        "24,612 clips, takes an NVIDIA 1.6 seconds": Log("Seven minutes on a GPU"),
        "takes 40 ms at a time": "the option's value beside it",
        "from 0.2 s after the end of a word on": "training_config.py, STREAM_TRAINING",
    },
}
"""Phrases by page, as they read without code, links and line breaks, and without what is allowed everywhere."""
