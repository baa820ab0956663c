"""`python -m seqtext`."""

from seqtext.cli.app import command

if __name__ == "__main__":
    command()
