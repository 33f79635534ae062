#!/usr/bin/env python3
"""Put the lecture's pictures on one page of HTML that needs no other file, no script and no request.

The text is in slides.py; voxark.report.page makes the page.

Usage: make_page.py [options] <picture-dir> <page>
e.g.: make_page.py exp/lecture/pictures exp/lecture/index.html
See also: egs/lecture/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated, Literal

from slides import INTRODUCTION, SLIDES, TITLE
from voxark.report.page import write_page


@cli.program
def main(
    picture_dir: str,
    page_file: str,
    *,
    format: Annotated[Literal["svg", "png"], "Which pictures to take."] = "svg",  # noqa: A002 - the option's name
) -> int:
    counts = cli.Counts("pictures")
    hint = "; egs/lecture/run.sh draws it"
    counts.done(write_page(picture_dir, page_file, SLIDES, TITLE, INTRODUCTION, format, hint))
    return counts.finish()


if __name__ == "__main__":
    main()
