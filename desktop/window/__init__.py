"""The page in a window of its own: one instance a library, a tray icon, the system's folder dialog."""
