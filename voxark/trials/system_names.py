"""Names of the systems whose score files stand side by side."""

from dataclasses import dataclass

from voxark.errors import VoxarkError
from voxark.options import option


@dataclass
class SystemNameOptions:
    """How systems are called."""

    labels: str = option("", "Names of the systems, with commas between them (default: by the files' names)")

    def names_of(self, files):
        """The systems' names: those given, or what differs in the names of the files."""
        if not self.labels:
            return distinct_names(files)
        names = self.labels.split(",")
        if len(names) != len(files):
            raise VoxarkError(f"--labels: {len(names)} names for {len(files)} lists of scores")
        if len(set(names)) < len(names):
            raise VoxarkError(f"--labels={self.labels}: two systems have the same name")
        return names


def distinct_names(files):
    """The names of files without the folders that all have in front, and the parts that all have behind."""
    parts = [name.strip().split("/") for name in files]
    if len(files) == 1:
        return [parts[0][-1]]
    for place in (0, -1):
        while min(map(len, parts)) > 1 and len({words[place] for words in parts}) == 1:
            parts = [words[1:] if place == 0 else words[:-1] for words in parts]
    return ["/".join(words) for words in parts]
