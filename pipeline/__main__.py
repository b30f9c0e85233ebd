"""`python -m pipeline`, and the command `bulkembed`."""

from pipeline import signals


def main(arguments: list[str] | None = None) -> None:
    """Catches signals before anything else: the imports of the command line take a tenth of a second."""
    signals.catch()
    from pipeline import cli

    cli.main(arguments)


if __name__ == "__main__":
    main()
