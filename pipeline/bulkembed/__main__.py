"""`python -m bulkembed`, and the command `bulkembed`."""

from bulkembed.cli import signals


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line. Signals are caught first, because importing the command line takes a tenth of a second."""
    signals.catch()
    from bulkembed.cli import app

    app.main(arguments)


if __name__ == "__main__":
    main()
