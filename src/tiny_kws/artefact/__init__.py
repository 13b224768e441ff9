"""The artefact: one ONNX file that turns samples into words and describes itself; and the code that runs it."""
