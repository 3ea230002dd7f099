"""Call the command line in this process."""

from click.testing import CliRunner, Result
from culteval.harness.cli.main import cli


def invoked(*words) -> Result:
    """The result of a command; a culteval error, or any other that is no exit, is raised as it is."""
    done = CliRunner().invoke(cli, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done
