"""Where the report's text, the released code, the report's code and its README disagree: the texts of findings.yaml, as
the blocks of the audit chapter, whose cells measure them."""

import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml
from IPython.display import HTML

from rkd import paths
from rkd.experiments import settings as parameters
from rkd.report.interactive.assets import in_book
from rkd.report.interactive.markup import Html, join, tag, text

GROUPS = {
    "printed": "Figures in print",
    "training": "Training recipe and data",
    "features": "The teacher and the compared features",
    "fusion": "ABF: fusing and passing on",
    "pyramid": "HCL: comparing pooled maps",
    "committed": "What the committed code cannot have produced",
    "reporting": "What is reported, and how",
    "baselines": "Quoted baselines",
}
MATTERS = {  # what each means, and the class of its badge
    "can change a conclusion": ("a statement of the report rests on it", "bad"),
    "could move numbers": ("accuracies may shift by more than the spread between seeds", "fair"),
    "changes what a number means": ("the number stands, but for something else than it is taken for", "info"),
    "hardly matters": ("less than the spread between seeds is to be expected", ""),
    "cosmetic": ("no number depends on it", ""),
    "consistent": ("checked, and found to hold", "good"),
}
SIDES = {  # headings of the two sides, where they are not text and code
    "printed": ("In one place", "In another"),
    "baselines": ("In the report", "At the source"),
}


@functools.cache
def findings() -> dict[int, dict[str, Any]]:
    """The entries of findings.yaml, which describes their fields, by number, ascending."""
    text = resources.files(__package__).joinpath("findings.yaml").read_text(encoding="utf-8")
    return {f["number"]: f for f in sorted(yaml.safe_load(text), key=lambda f: f["number"])}


def finding(*numbers: int) -> HTML:
    """Findings by number: both sides next to each other, their size, how to train either side, and where to look."""
    return HTML(join(*(_block(findings()[number]) for number in numbers)))


def _block(f: Mapping[str, Any]) -> Html:
    place = f"finding-{f['number']}"
    number = tag("span", f["number"], class_="rkd-finding-number")
    heading = number, " ", words(f["title"]), " ", badge(f["matters"])
    heads = SIDES.get(f["group"], ("In the text", "In the code"))
    texts = (words(f[side]) for side in ("text_says", "code_does"))
    sides = (tag("div", tag("dt", h), tag("dd", text)) for h, text in zip(heads, texts, strict=True))
    reading = tag("strong", "Our reading."), " ", words(f.get("reading", ""))
    how = tag("ul", *(tag("li", f"{side['who']}: ", _how(side)) for side in f.get("reproduce", ())))
    train = words(f["nothing_to_train"]) if "nothing_to_train" in f else how
    pages = [part for page in f["chapters"] for part in (", ", _link(page))][1:]
    return tag(
        "section",
        tag("h3", *heading, class_="rkd-finding-title", id=f"{place}-title"),
        tag("dl", *sides, class_="rkd-sides"),
        tag("p", tag("strong", "Does it matter?"), " ", words(f["how_much"])),
        tag("p", *reading, class_="rkd-reading") if "reading" in f else "",
        tag("div", tag("strong", "To train it:"), " ", train, class_="rkd-train"),
        tag("p", tag("strong", "See"), " ", *pages, "; ", tag("a", "the list", href="#the-list"), class_="rkd-see"),
        class_="rkd-finding", id=place, aria_labelledby=f"{place}-title",
    )  # fmt: skip


def _how(side: Mapping[str, Any]) -> Html:
    """How a side is trained: a chapter's row, a recipe and what it sets, or what papermill is given."""
    sets = side.get("sets", {})
    if "row" in side:
        chapter, _, key = side["row"].partition("/")
        return join("row ", tag("code", key), " of ", _link(chapter))
    if "recipe" in side:
        said = ", ".join(f"{name}: {_yaml(value)}" for name, value in sets.items())
        return join("recipe ", tag("code", side["recipe"]), ", where ", tag("code", said))
    own = {name: value for name, value in sets.items() if name in parameters.names()}
    options = {name: value for name, value in sets.items() if name not in own}
    return tag("code", f"-y '{_yaml(own | ({'options': options} if options else {}))}'")


def _yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def words(said: str) -> Html:
    """Of a text that may hold `code` and **stress**; "finding 9" becomes a link."""
    safe = text(said.strip())
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\bfinding (\d+)\b", r'<a href="#finding-\1">finding \1</a>', safe)
    return Html(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


def _link(page: str) -> Html:
    """A link to another page, of the built book inside a build, else of the notebooks' folder; its heading up to a
    colon is what it is called."""
    (file,) = (paths.home() / "book").glob(f"{page}.[im][pd]*")
    title = re.search(r'# ([^:"\\\n]+)', file.read_text(encoding="utf-8"))[1]
    return tag("a", title, href=f"{page}.html" if in_book() else file.name)


def badge(matters: str) -> Html:
    """One of MATTERS."""
    return tag("span", matters, class_=f"rkd-badge {MATTERS[matters][1]}")
