"""Pictures of a recipe on one page of HTML that needs no other file, no script and no request.

SVG pictures become part of the page, their ink and paper as variables, so that they follow a light or a dark
page and print black on white; PNG pictures are embedded as they are.
"""

import base64
import html
import re
from pathlib import Path
from typing import NamedTuple

from voxark.errors import VoxarkError
from voxark.io.streams import open_text_output
from voxark.report.drawing import INK, MUTED, PAPER


class Slide(NamedTuple):
    """``name`` is the picture's file without its ending; ``title`` and ``text`` are HTML, ``alt`` is not.

    ``section``: heading that slides which follow each other share; ``alt``: what the picture shows, for those
    who cannot see it; ``programs``: what made it.
    """

    section: str
    name: str
    title: str
    alt: str
    text: str
    programs: str


VARIABLES = {INK: "--ink", MUTED: "--muted", PAPER: "--paper"}
DARK = {INK: "#e8eaee", MUTED: "#9aa4b2", PAPER: "#16191e"}

CSS = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
@media print { :root { color-scheme: light; LIGHT } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 3.5rem 0 0; padding-top: 1rem; border-top: 1px solid var(--muted); }
h3 { font-size: 1.12rem; margin: 2.5rem 0 .5rem; }
p { margin: 0 0 .6rem; max-width: 46rem; }
nav ol { columns: 2 22rem; padding-left: 1.8rem; margin: 1.25rem 0 0; }
nav li { break-inside: avoid; padding: .1rem 0; }
a { color: inherit; text-decoration-color: var(--muted); text-underline-offset: .2em; }
a:hover { text-decoration-color: currentColor; }
a:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
figure { margin: .75rem 0 0; break-inside: avoid; }
figure > .picture { overflow-x: auto; }
figure svg, figure img { display: block; width: 100%; min-width: 36rem; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure img { background: #fefefd; }
figcaption { margin-top: .75rem; }
.made { color: var(--muted); font-size: .9rem; }
code { font: .92em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; }
  article { break-inside: avoid; } figure > .picture { overflow: visible; }
  figure svg, figure img { min-width: 0; max-height: 16cm; } }
"""


def style():
    """Return the style sheet, with the pictures' colours as variables."""
    light = " ".join(f"{name}: {color};" for color, name in VARIABLES.items())
    dark = " ".join(f"{name}: {DARK[color]};" for color, name in VARIABLES.items())
    return CSS.replace("LIGHT", light).replace("DARK", dark)


def inline_svg(path, slide):
    """Return a picture's <svg> for the page: ids of its own, colours as variables, its description inside."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.S)  # it would hold for the whole page
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    prefix = slide.name.partition("_")[0]
    text = re.sub(r'\bid="([^"]+)"', rf'id="p{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>p{prefix}-", text)
    for color, name in VARIABLES.items():
        text = re.sub(rf"(?<=[:\s]){color}\b", f"var({name})", text, flags=re.I)
    head, _, rest = text.partition(">")
    view = re.search(r'viewBox="([^"]+)"', head)
    if view is None or "</svg>" not in rest:
        raise VoxarkError(f"{path}: not a whole SVG picture")
    label = html.escape(slide.alt, quote=True)
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{label}" '
        f'viewBox="{view[1]}"><title>{html.escape(slide.alt)}</title>{rest.strip()}'
    )


def inline_png(path, slide):
    """Return a picture's <img> with its bytes in it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(slide.alt, quote=True)}" src="data:image/png;base64,{data}">'


def article(slide, number, picture):
    """Return one slide of the page."""
    return (
        f'<article id="{slide.name}">\n<h3>{number}. {slide.title}</h3>\n'
        f'<figure><div class="picture">{picture}</div>\n<figcaption><p>{slide.text}</p>\n'
        f'<p class="made">Made by <code>{html.escape(slide.programs)}</code></p></figcaption></figure>\n'
        "</article>\n"
    )


def page(pictures, title, introduction):
    """Return the page from {slide: the picture's HTML}, its title and a paragraph at its head, in HTML."""
    entries = "".join(f'<li><a href="#{slide.name}">{slide.title}</a></li>\n' for slide in pictures)
    body, section = [], None
    for number, (slide, picture) in enumerate(pictures.items(), 1):
        if slide.section != section:
            section = slide.section
            body.append(f"<h2>{section}</h2>\n")
        body.append(article(slide, number, picture))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style()}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1>\n<p>{introduction}</p></header>\n"
        f'<nav aria-label="Slides"><ol>\n{entries}</ol></nav>\n'
        f"<main>\n{''.join(body)}</main>\n</body>\n</html>\n"
    )


def write_page(picture_dir, page_file, slides, title, introduction, ending="svg", fail_hint=""):
    """Write the page of ``slides`` with the pictures <picture_dir>/<name>.<ending>, svg or png.

    Returns their number. VoxarkError for a picture that is not there, with ``fail_hint`` saying who draws it.
    """
    inline, pictures = {"svg": inline_svg, "png": inline_png}[ending], {}
    for slide in slides:
        path = Path(picture_dir) / f"{slide.name}.{ending}"
        if not path.is_file():
            raise VoxarkError(f"{path}: no such picture{fail_hint}")
        pictures[slide] = inline(path, slide)
    with open_text_output(page_file) as out:
        out.write(page(pictures, title, introduction))
    return len(pictures)
