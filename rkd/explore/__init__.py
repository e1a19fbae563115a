"""The live page: choose a run, see what it costs, watch it train beside the same run without distillation, keep it."""

from typing import Any

ALT = (
    "The live page in a notebook: choices of networks, method, loss and data; sizes, cost and the review path; a bar "
    "of progress, curves with and without distillation, attention maps and a table of saved runs."
)


def explore(
    choices: dict[str, Any] | None = None, *, data_root: str | None = None, device: str = "auto"
) -> object:
    """Return the live page, to be a cell's last expression; in a build of the book, which has no kernel, its picture.

    A page that this kernel has shown before is closed: its training stops, and can be resumed from the new one.

    Args:
        choices: initial values, by the names of `rkd.explore.runs.FIRST` and of the method's options, for
            example {"epochs": 2, "hcl_levels": ["h", 2, 1], "hcl_weights": [1, 0.5, 0.25]}.
        data_root: folder of the CIFAR files, downloaded there when missing; None: data in the project.
        device: "auto", "cpu", "cuda", "cuda:1".

    Raises:
        ConfigError: an unknown choice or device, or a value that is not allowed.
    """
    from rkd import paths
    from rkd.report.interactive.assets import in_book
    from rkd.report.interactive.markup import picture

    if in_book():
        shot = (paths.home() / "book" / "_assets" / "explore.png").read_bytes()
        style = "max-width:100%;height:auto;border:1px solid #8884"
        return picture(shot, ALT, style=style)
    from rkd.explore.page import LivePage

    return LivePage(choices or {}, paths.from_user_folder(data_root) if data_root else "data", device)
