"""HTML of interactive pictures: whatever is not finished markup is text, and is escaped here and nowhere else."""

from html import escape

_VOID = frozenset({"br", "img", "input"})


class Html(str):
    """Finished markup."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def text(said: object) -> Html:
    """Markup stays as it is; anything else becomes text."""
    return said if isinstance(said, Html) else Html(escape(str(said), quote=True))


def join(*parts: object) -> Html:
    """Parts one after another."""
    return Html("".join(map(text, parts)))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element; `class_` and `data_key` are the attributes "class" and "data-key", True is one without a value,
    None and False are none.

    >>> tag("b", "a < b", class_="x", hidden=True)
    '<b class="x" hidden>a &lt; b</b>'
    """
    given = {
        k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None and v is not False
    }
    start = "".join(f" {k}" if v is True else f' {k}="{text(v)}"' for k, v in given.items())
    return Html(f"<{name}{start}>" + ("" if name in _VOID else f"{join(*inside)}</{name}>"))


def number(said: object) -> Html:
    """A number of a table."""
    return tag("span", said, class_="rkd-number")


def quiet(said: object) -> Html:
    """What stands below a number of a table."""
    return tag("span", said, class_="rkd-n")
