"""``python -m cnnkern``: the command line."""

from .cli import main

main()
