#!/usr/bin/env python3
"""Put the experiments' pictures on one page of HTML that needs no other file, no script and no request.

The text is in slides.py, its numbers in the tables beside the pictures; voxark.report.page makes the page.

Usage: make_page.py [options] <picture-dir> <page>
e.g.: make_page.py exp/e2e_tutorial/pictures exp/e2e_tutorial/index.html
See also: egs/e2e_tutorial/run.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

from typing import Annotated, Literal

from slides import INTRODUCTION, TITLE, make_slides
from voxark.report.page import write_page


@cli.program
def main(
    picture_dir: str,
    page_file: str,
    *,
    format: Annotated[Literal["svg", "png"], "Which pictures to take."] = "svg",  # noqa: A002 - option's name
) -> int:
    counts = cli.Counts("pictures")
    hint = "; egs/e2e_tutorial/run.sh draws it"
    counts.done(
        write_page(picture_dir, page_file, make_slides(picture_dir), TITLE, INTRODUCTION, format, hint)
    )
    return counts.finish()


if __name__ == "__main__":
    main()
