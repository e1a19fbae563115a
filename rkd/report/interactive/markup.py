"""HTML and Markdown of pages: whatever is not finished markup is text, and becomes markup here and nowhere else.

Names, notes and provenance come from records, data sets and logs, which other people may have written.
"""

import base64
import re
from html import escape

_VOID = frozenset({"br", "img", "input"})


class Html(str):
    """Finished markup."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def text(said: object) -> Html:
    """Return markup as it is, anything else as escaped text with a replacement mark for each invalid character."""
    if isinstance(said, Html):
        return said
    return Html(escape(str(said).encode(errors="replace").decode(), quote=True))


def join(*parts: object) -> Html:
    """Return the parts one after another."""
    return Html("".join(map(text, parts)))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """Return an element; `class_` and `data_key` are the attributes "class" and "data-key", True makes one without a
    value, None and False make none.

    >>> tag("b", "a < b", class_="x", hidden=True)
    '<b class="x" hidden>a &lt; b</b>'
    """
    given = {
        k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None and v is not False
    }
    start = "".join(f" {k}" if v is True else f' {k}="{text(v)}"' for k, v in given.items())
    return Html(f"<{name}{start}>" + ("" if name in _VOID else f"{join(*inside)}</{name}>"))


def picture(png: bytes, alt: str, **attributes: object) -> Html:
    """Return an image embedded in the page, with words for those who do not see it; attributes as in `tag`."""
    return tag("img", alt=alt, **attributes, src=f"data:image/png;base64,{base64.b64encode(png).decode()}")


def code(said: object, language: str = "") -> str:
    """Return Markdown that shows a text verbatim, whatever it holds: a block if a language is given, else inline."""
    plain = str(said).encode(errors="replace").decode()
    plain = plain if language else " ".join(plain.split())  # an empty line would end the code
    ticks = "`" * max([3 if language else 1, *(len(run) + 1 for run in re.findall("`+", plain))])
    space = " " * ("`" in plain)
    return f"{ticks}{language}\n{plain}\n{ticks}" if language else f"{ticks}{space}{plain}{space}{ticks}"


def directive(name: str, title: str, *inside: str, class_: str = "") -> str:
    """Return a MyST directive around finished Markdown, which cannot end it."""
    body = "\n\n".join(inside)
    colons = ":" * max([4, *(len(run) + 1 for run in re.findall(":+", body))])
    option = f":class: {class_}\n" * bool(class_)
    return f"{colons}{{{name}}} {title}\n{option}\n{body}\n{colons}"
