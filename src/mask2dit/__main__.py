"""`python -m mask2dit` is the `mask2dit` command."""

from mask2dit.cli.main import main

if __name__ == "__main__":
    main()
