"""How qvl-tiny was trained: a checkout's tool, not part of the wheel."""
