"""The report: tables and figures of the chapters, and the book around them."""


def open_page(chapter, namespace):
    """See rkd.report.page.open_page; imported here so that the command line need not load plotting libraries."""
    from rkd.report.page import open_page

    return open_page(chapter, namespace)


__all__ = ["open_page"]
