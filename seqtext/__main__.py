"""`python -m seqtext`."""

from seqtext.cli.app import main

if __name__ == "__main__":
    main()
