"""How the training of a model went, by the figures in its folder."""

import json
import math
import os


def describe_training(folder):
    """Figures of metrics.jsonl in a model's folder, {} without one: epochs, and the last line's values.

    A run that is going on may be writing its last line: what is no JSON is passed over.
    """
    try:
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as source:
            lines = [_parsed(line) for line in source]
    except (OSError, UnicodeDecodeError):
        return {}
    lines = [line for line in lines if isinstance(line, dict)]
    if not lines:
        return {}
    plain = {name: value for name, value in lines[-1].items() if isinstance(value, (int, float, str, bool))}
    return {"epochs": len(lines), "last_epoch": [{"name": name, "value": _finite(value)}
                                                 for name, value in plain.items()]}


def _parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
