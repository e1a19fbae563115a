"""Text that would do harm wherever it became markup, and what of it is alive in a page."""

from html.parser import HTMLParser

MARK = (
    '"\'><x-pwn></x-pwn><img src=x onerror="window.PWN=1"><script>window.PWN=1</script>[a](javascript:PWN) '
    '![b](x.png "c") $\\href{javascript:PWN}{d}$ {eval-rst}`e` `f &lt;x-pwn&gt;&lt;/x-pwn&gt; PWN'
)
# The same of a page in a browser.
IN_BROWSER = """
    const found = [...document.querySelectorAll('x-pwn'), ...document.querySelectorAll('article *')].filter((e) =>
      e.localName === 'x-pwn' || e.getAttributeNames().some((name) => name.startsWith('on')));
    const target = (e) => String(e.href?.baseVal ?? e.href ?? e.src ?? e.action);
    found.push(...[...document.querySelectorAll('[href], [src], [action]')]
      .filter((e) => /^(java|vb)script:/i.test(target(e))));
    const scripts = [...document.scripts].filter((e) => e.type !== 'application/json');
    found.push(...scripts.filter((e) => e.textContent.includes('window.PWN')));
    return [...found.map((e) => e.outerHTML.slice(0, 200)), ...(window.PWN ? ['a script ran'] : [])];
"""


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._script = False

    def handle_starttag(self, tag, attributes):
        self._script = tag == "script" and ("type", "application/json") not in attributes
        handlers = [name for name, _ in attributes if name.startswith("on")]
        links = [
            v for n, v in attributes if n in ("href", "src", "action") and "javascript:" in (v or "").lower()
        ]
        if tag == "x-pwn" or handlers or links:
            self.found.append(self.get_starttag_text())

    def handle_data(self, data):
        if self._script and "window.PWN" in data:
            self.found.append(data)
        self._script = False


def alive(page: str) -> list[str]:
    """Elements of MARK, handlers, links and scripts of its kind that a page of HTML holds."""
    parser = _Page()
    parser.feed(page)
    return parser.found
