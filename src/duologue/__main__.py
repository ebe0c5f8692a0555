"""``python -m duologue``: the command line."""

from duologue.cli import main

if __name__ == "__main__":
    main(prog_name="duologue")
