"""The figures that a program draws, kept so that a test can look at what they show."""

from ppcls_nextvit.engine.curves import pyplot

__all__ = ["keep_figures"]


def keep_figures(monkeypatch):
    """A list that from now on gets every figure that is closed."""
    figures, plt = [], pyplot()
    close = plt.close

    def closed(figure):
        figures.append(figure)
        close(figure)

    monkeypatch.setattr(plt, "close", closed)
    return figures
