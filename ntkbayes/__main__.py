"""`python -m ntkbayes`: the command line."""

from ntkbayes.cli import run

if __name__ == "__main__":
    run()
