"""A Page into one file of HTML, by page.html.j2 with page.css and page.js, and plotly's library."""

import json
from pathlib import Path

from voxark.errors import VoxarkError

_HERE = Path(__file__).parent


def require_report():
    """(jinja2, plotly.offline); VoxarkError, which says how to install them, where they are missing."""
    try:
        import jinja2
        from plotly import offline
    except ImportError as error:
        raise VoxarkError(
            f"the page needs Jinja2 and plotly: pip install 'voxark[report]' ({error})"
        ) from None
    return jinja2, offline


def figures_of(page):
    """All Figures of a Page, in order."""
    found = []
    for section in page.sections:
        for part in section.parts:
            found += part.figures if part.kind == "grid" else [part] if part.kind == "figure" else []
    return found


def figures_json(page):
    """The figures as JSON that can stand in a script element: {number of the figure: {data, layout}}."""
    content = {
        str(number): {"data": figure.data, "layout": figure.layout}
        for number, figure in enumerate(figures_of(page))
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render(page):
    """The page's HTML, a str."""
    jinja2, offline = require_report()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    numbers = {id(figure): number for number, figure in enumerate(figures_of(page))}
    library = offline.get_plotlyjs().replace("</script", "<\\/script")
    text = environment.get_template("page.html.j2").render(
        page=page,
        number_of=lambda figure: numbers[id(figure)],
        figures=figures_json(page),
        plotly=library,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # a file's name may be no UTF-8
