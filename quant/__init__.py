"""Quantization formats and accuracy reports. Knows arrays, nothing of commands or pages."""
