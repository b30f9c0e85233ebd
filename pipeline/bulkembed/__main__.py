"""`python -m bulkembed`, and the command `bulkembed`."""

from collections.abc import Mapping
from typing import Any

from bulkembed.cli import signals


def main(arguments: list[str] | None = None, defaults: Mapping[str, Any] | None = None) -> None:
    """Runs the command line. Signals are caught first, because importing the command line takes a tenth of a second.

    `defaults`: keys of a run, over which files and options lie."""
    signals.catch()
    from bulkembed.cli import app

    app.main(arguments, defaults)


if __name__ == "__main__":
    main()
