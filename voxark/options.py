"""Options of a method, declared once as a dataclass beside its mathematics.

Every field carries its help text; the programs in bin/ turn each field into ``--field-name``.
"""

import dataclasses


def option(default, help):  # noqa: A002 - the field's word for it
    """Return a dataclass field with a default value and a help text (mutable defaults are not options)."""
    return dataclasses.field(default=default, metadata={"help": help})
