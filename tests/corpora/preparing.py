"""What the tests of the preparations of TIMIT and Aurora-4 share."""

from helpers import run_script

from voxark import datadir


class Preparation:
    """A program local/CORPUS/prepare_data.py."""

    def __init__(self, program):
        self.program = program

    def run(self, corpus, out, *options, check=True, env=None):
        """What the program says."""
        return run_script(self.program, *options, corpus, out, check=check, env=env)

    def refuse(self, corpus, out, *options, env=None):
        """The error of a preparation that must fail in one line and write nothing."""
        done = self.run(corpus, out, *options, check=False, env=env)
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        assert done.returncode == 1 and len(errors) == 1, done.stderr
        assert not list(out.glob("*")) and not list(out.glob(".prepare*"))
        return errors[0]


def table(path):
    """{key: text} of a table."""
    return dict(datadir.read_table(path, datadir.parse_text))


def contents(folder, without=()):
    """Every file's bytes by its name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
