"""Text from model files, made safe for a terminal."""

from __future__ import annotations

from rich.text import Text


def printable(text: str) -> Text:
    """Return `text` without markup, its control and format characters written as escapes.

    Names come from files: an escape sequence in one could rewrite the screen.
    """
    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def nbytes_text(nbytes: int) -> str:
    """Return a size as people write it, such as ``24.5 KB``; 1 KB is 1024 bytes."""
    size = float(nbytes)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{nbytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"
