"""Fidelity reports: how well a bundle finds things, and how far it is from the model it was made of.

datasets      world.py, folder.py  ->  dataset.py      what is searched, and what answers what
measurement   bench.py -> child.py -> worker.py        one process a bundle: vectors, logits, time, memory
figures       vectors.py, metrics.py, correlation.py, bootstrap.py -> matrix.py
results       report.py, gate.py, card.py, plot.py
"""
