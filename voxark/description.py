"""How the info programs print what a model is: text for people and scripts, JSON for programs."""

from dataclasses import dataclass
from typing import Literal

from voxark.options import option


@dataclass
class DescriptionOptions:
    """The form of a description."""

    format: Literal["text", "json"] = option(
        "text", "Lines `<name> <value>`, or a JSON list with an object for each model")

    def write(self, out, descriptions):
        """Write dicts of name -> value, one a model; a list of dicts gives in text a line for each of them."""
        if self.format == "json":
            import json

            out.write(json.dumps(descriptions, indent=2) + "\n")
            return
        for description in descriptions:
            for name, value in description.items():
                rows = [row.values() for row in value] if isinstance(value, list) else [[value]]
                for row in rows:
                    out.write(" ".join([name.replace("_", "-"), *map(_text, row)]) + "\n")


def _text(value):
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
