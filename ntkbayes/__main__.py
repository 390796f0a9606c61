"""`python -m ntkbayes`: the command line."""

from ntkbayes.app.cli import run

if __name__ == "__main__":
    run()
