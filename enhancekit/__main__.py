"""The command line as ``python -m enhancekit``, where no script is on the path."""

from enhancekit.cli import run

if __name__ == "__main__":
    run()
