"""The live page: choose a run, see what it costs, watch it train beside the same run without distillation, keep it."""

from typing import Any


def explore(
    choices: dict[str, Any] | None = None, *, data_root: str = "data", device: str = "auto"
) -> object:
    """The page, to be a cell's last expression. In a build of the book, where no kernel is behind it, its picture.

    Args:
        choices: values to begin with, by the names of `rkd.explore.choices.Choices`, for example {"epochs": 2}.
        data_root: folder of the CIFAR files, relative to the project or absolute; downloaded there when missing.
        device: "auto", "cpu", "cuda", "cuda:1".

    Raises:
        ConfigError: an unknown choice or device.
    """
    from rkd.explore.still import in_a_book_build, still

    if in_a_book_build():
        return still()
    from rkd.explore.app import open_app

    return open_app(choices or {}, data_root, device)


__all__ = ["explore"]
