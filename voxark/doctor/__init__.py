"""voxark doctor: what voxark finds on this machine, and what to do about what is missing."""

from voxark.doctor.findings import as_json, as_text, is_healthy  # noqa: F401 - bin/voxark prints with them


def examine(program):
    """All findings, a list of voxark.doctor.findings.Finding; ``program`` is the path of bin/voxark."""
    from voxark.doctor import machine, packages, selftest, software, tools

    return [
        finding
        for part in (software, packages, machine, tools, selftest)
        for finding in part.examine(program)
    ]
