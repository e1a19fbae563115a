"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as torchvision downloads and verifies them."""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from filelock import FileLock

from rkd.data.sources import Reader, Source, Split, register_source
from rkd.errors import DataError

if TYPE_CHECKING:
    from rkd.data.config import DataConfig


class _Cifar(Reader):
    """Reads `root`/<folder of the unpacked archive>; downloads what is not there, once."""

    name: ClassVar[str]
    dataset: ClassVar[str]  # class in torchvision.datasets

    def open(self, config: "DataConfig", root: Path, download: bool, progress: bool) -> Source:
        kind = self._kind()
        if self._missing(root):
            if not download:
                raise DataError(
                    f"{self.name} is not in {str(root)!r}; `rkd data {self.name} --root {root}` downloads it"
                )
            self._download(root, progress)
        for file, md5 in _files(kind):
            self._verify(root / kind.base_folder / file, md5)
        train, test = (kind(str(root), train=train) for train in (True, False))
        return Source(_split(train), _split(test), tuple(train.classes))

    def check(self, config: "DataConfig", root: Path) -> None:
        """Missing files can be downloaded, and damage shows only in reading; a file for a folder is wrong."""
        if root.exists() and not root.is_dir():
            raise DataError(f"the data folder {str(root)!r} is a file")

    def is_there(self, config: "DataConfig", root: Path) -> bool:
        return not self._missing(root)

    def files(self, config: "DataConfig", root: Path) -> dict[str, Path]:
        kind = self._kind()
        names = [f"{kind.base_folder}/{file}" for file, _ in _files(kind)]
        return {name: root / name for name in names}

    def _kind(self) -> type:
        from torchvision import datasets  # takes a second to import: not before CIFAR is wanted

        return getattr(datasets, self.dataset)

    def _missing(self, root: Path) -> bool:
        kind = self._kind()
        return not all((root / kind.base_folder / file).is_file() for file, _ in _files(kind))

    def _download(self, root: Path, progress: bool) -> None:
        kind = self._kind()
        quiet = io.StringIO()
        try:
            root.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                # Several runs may start at once: the first downloads, the others wait and find the files
                # there.
                stack.enter_context(FileLock(root / f".{self.name}.lock"))
                if not progress:
                    stack.enter_context(contextlib.redirect_stderr(quiet))
                    stack.enter_context(contextlib.redirect_stdout(quiet))
                if self._missing(root):
                    kind(str(root), train=True, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            raise DataError(
                f"{self.name} could not be downloaded to {str(root)!r} ({_short(error)}); "
                f"without a network, put the unpacked folder {kind.base_folder} of {kind.filename} there"
            ) from error

    def _verify(self, path: Path, md5: str) -> None:
        from torchvision.datasets.utils import check_integrity

        if not check_integrity(str(path), md5):
            raise DataError(
                f"{str(path)!r} is damaged (its MD5 is not {md5}); delete it and run "
                f"`rkd data {self.name} --root {path.parent.parent}`"
            )


@register_source("cifar10")
class Cifar10(_Cifar):
    """50,000 training and 10,000 test images, 10 classes, 32 x 32."""

    name = "cifar10"
    dataset = "CIFAR10"


@register_source("cifar100")
class Cifar100(_Cifar):
    """50,000 training and 10,000 test images, 100 classes ("fine" labels), 32 x 32."""

    name = "cifar100"
    dataset = "CIFAR100"


def _files(kind: type) -> list[tuple[str, str]]:
    meta = (kind.meta["filename"], kind.meta["md5"])
    return [*map(tuple, kind.train_list), *map(tuple, kind.test_list), meta]


def _split(dataset) -> Split:
    return Split(np.asarray(dataset.targets, dtype=np.int64), dataset.data.__getitem__)


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
