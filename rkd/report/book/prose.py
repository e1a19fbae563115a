"""The words a build adds: provenance, failures, what is missing, what variations and chapters say of each other."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime

from rkd.report.book.pages import Book, Page, plain
from rkd.report.book.variations import INCIDENTAL

LOG_TAIL = 40  # lines


def provenance(page: Page, book: Book) -> str:
    """One line on when, where and with which profile a chapter ran."""
    finished = datetime.fromisoformat(page.finished).strftime("%-d %B %Y, %H:%M UTC")
    machine = f" on {page.machine}" if page.machine else ""
    text = f"Executed {finished}, profile {book.profile}, in {page.seconds:.0f} s{machine}."
    return f'<p class="rkd-executed">{text}</p>'


def failed_page(page: Page, title: str, book: Book) -> str:
    """Markdown in a failed chapter's place: what it said last, the end of its log, how to run it again."""
    log = book.folder(page.variation) / f"{page.name}.log"
    text = plain(log.read_text(encoding="utf8", errors="replace")) if log.is_file() else ""
    tail = "\n".join(text.splitlines()[-LOG_TAIL:])
    return f"""# {title}

::::{{admonition}} This chapter failed
:class: danger

It stopped after {page.seconds:.0f} s with profile `{book.profile}`, and shows no numbers for that reason.

{fenced(page.reason)}
::::

Run it again on its own:

{fenced(command(page, book), "shell")}

::::{{dropdown}} The last {LOG_TAIL} lines of its log
{fenced(tail or "(the log is empty)")}
::::
"""


def not_executed_page(page: Page, title: str, book: Book, opening: str = "") -> str:
    """Markdown in the place of a chapter that no build of this profile has executed, below its opening words."""
    return f"""# {title}

{opening}

::::{{admonition}} Not executed in this build
:class: note

This copy of the book was built with profile `{book.profile}` and without this chapter. To add it:

{fenced(command(page, book), "shell")}
::::
"""


def command(page: Page, book: Book) -> str:
    """The command that executes a page again."""
    words = ["rkd", "book", "--profile", book.profile, "--only", page.name]
    if page.variation:
        words += ["--name", page.variation]
        for name, value in page.parameters.items():
            words += ["-p", name, json.dumps(value)]
    return shlex.join(words)


def variation_note(page: Page, title: str) -> str:
    """Markdown at the top of a variation: what it is a variation of, and which parameters differ."""
    source = ""
    if page.adopted:
        source = f" It was executed with papermill on its own and taken from `{page.adopted}`."
    if page.edited:
        source += " **Its code differs from the chapter's.**"
    return f"""::::{{admonition}} Variation {page.variation}
:class: note

This page is [{title}]({page.name}.ipynb) with {given(page.parameters)}; all else is as there.{source}
::::"""


def variation_list(pages: Sequence[Page]) -> str:
    """Markdown at the end of a chapter that has variations: links and what differs."""
    items = [f"- [{page.variation}]({page.file}.ipynb): {given(page.parameters)}" for page in pages]
    return "\n".join(["**Variations of this page**", "", *items])


def given(parameters: Mapping[str, object]) -> str:
    """Parameters and values as Markdown code."""
    return ", ".join(code(text) for text in spelt(parameters))


def spelt(parameters: Mapping[str, object]) -> list[str]:
    """Parameters and values as text, those left out that change no number."""
    return [
        f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in parameters.items()
        if name not in INCIDENTAL
    ]


def code(text: str) -> str:
    """Markdown code of one line, whatever backticks it holds."""
    space = " " if "`" in text else ""
    return f"{_ticks(text, 1)}{space}{text}{space}{_ticks(text, 1)}"


def fenced(text: str, language: str = "text") -> str:
    """A Markdown block of code, whatever fences the text holds."""
    return f"{_ticks(text, 3)}{language}\n{text}\n{_ticks(text, 3)}"


def _ticks(text: str, least: int) -> str:
    """More backticks than the text has in a row."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
