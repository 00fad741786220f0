"""What the window needs of Qt beyond pywebview: downloads, one address only, a tray icon, coming up front.

Imported once the window exists; everything here runs in Qt's own thread, but for the signal of `shower`.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy import QtCore, QtGui, QtWidgets
from qtpy.QtWebEngineCore import QWebEngineDownloadRequest, QWebEnginePage, QWebEngineScript
from webview.platforms.qt import BrowserView

from .folder_call import NAME, PICK_FOLDER, SCRIPT, answer

if TYPE_CHECKING:
    from .window import TrayActions


class Shower(QtCore.QObject):  # type: ignore[misc]
    """Brings the window to the front: `emit` may be called from any thread."""

    _asked = QtCore.Signal()

    def __init__(self, view: Any) -> None:
        super().__init__(view)
        self._view = view
        self._asked.connect(self._show)

    def emit(self) -> None:
        """Ask for it; Qt's thread does it."""
        self._asked.emit()

    def _show(self) -> None:
        self._view.setWindowState(self._view.windowState() & ~QtCore.Qt.WindowState.WindowMinimized)
        self._view.show()
        self._view.raise_()
        self._view.activateWindow()


def view_of(window: Any) -> Any:
    """The Qt window behind one of pywebview's."""
    return BrowserView.instances[window.uid]


def shower(view: Any) -> Shower:
    """See `Shower`."""
    return Shower(view)


def keep_to(view: Any, netloc: str) -> None:
    """Show nothing but our own page, and let it ask for a folder: others must never have that in reach."""
    page: QWebEnginePage = view.webview.page()

    def check(request: Any) -> None:
        url = request.url()
        if url.toString() == PICK_FOLDER:
            request.reject()
            # After this call is over: a dialog waits, and must not hold up the page that asks.
            QtCore.QTimer.singleShot(0, lambda: page.runJavaScript(answer(_picked_folder(view))))
        elif request.isMainFrame() and f"{url.host()}:{url.port()}" != netloc:
            request.reject()
            if url.scheme() in ("http", "https"):
                webbrowser.open(url.toString())

    script = QWebEngineScript()
    script.setName(NAME)
    script.setSourceCode(SCRIPT)
    script.setInjectionPoint(QWebEngineScript.InjectionPoint.DocumentCreation)
    script.setWorldId(QWebEngineScript.ScriptWorldId.MainWorld.value)
    page.scripts().insert(script)
    page.navigationRequested.connect(check)


def _picked_folder(view: Any) -> str | None:
    """What a person chooses in the system's own dialog."""
    return QtWidgets.QFileDialog.getExistingDirectory(view, "Add a folder", str(Path.home())) or None


def save_downloads(view: Any) -> None:
    """Ask where a download shall go, in the system's own dialog."""

    def save(download: QWebEngineDownloadRequest) -> None:
        folder = QtCore.QStandardPaths.writableLocation(
            QtCore.QStandardPaths.StandardLocation.DownloadLocation
        )
        proposed = str(Path(folder) / download.suggestedFileName())
        chosen, _ = QtWidgets.QFileDialog.getSaveFileName(view, "Save", proposed)
        if not chosen:
            download.cancel()
            return
        download.setDownloadDirectory(str(Path(chosen).parent))
        download.setDownloadFileName(Path(chosen).name)
        download.accept()

    view.profile.downloadRequested.connect(save)


def tray_icon(view: Any, actions: TrayActions, icon: Path | None) -> Any | None:
    """An icon in the tray with a small menu; None where the system has no tray."""
    if not QtWidgets.QSystemTrayIcon.isSystemTrayAvailable():
        return None
    picture = QtGui.QIcon(str(icon)) if icon is not None else view.windowIcon()
    tray = QtWidgets.QSystemTrayIcon(picture, view)
    tray.setToolTip(view.windowTitle())
    menu = QtWidgets.QMenu(view)
    front = shower(view)
    menu.addAction("Show the window", front.emit)
    pause = menu.addAction("Pause indexing")
    pause.setCheckable(True)
    pause.triggered.connect(actions.set_paused)
    menu.aboutToShow.connect(lambda: pause.setChecked(actions.is_paused()))
    menu.addSeparator()
    menu.addAction("Quit", view.close)
    tray.setContextMenu(menu)
    tray.activated.connect(
        lambda reason: front.emit() if reason == QtWidgets.QSystemTrayIcon.ActivationReason.Trigger else None
    )
    tray.show()
    return tray
