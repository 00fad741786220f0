"""Checkpoints in, bundles out: the ONNX graph builder, the writers, parity and packaging."""
