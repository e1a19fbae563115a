"""The book: chapters executed in kernels of their own, staged and built into one offline site."""

from rkd.report.book.building import adopt_notebook, build_book, drop_variation
from rkd.report.book.pages import TOKEN, VARIATION, Book, BookResult, Page
