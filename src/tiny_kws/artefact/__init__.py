"""The artefact: one ONNX file from samples to words, with all there is to know about it inside; and what runs it."""
