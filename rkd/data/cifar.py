"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as torchvision downloads and verifies them."""

import shlex
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock

from rkd.data.sources import DataConfig, Reader, Source, register_source
from rkd.errors import DataError


@register_source("cifar100")
class Cifar100(Reader):
    """50,000 training and 10,000 test images, 100 classes ("fine" labels), 32 x 32, from the unpacked archive's folder
    in `root`; what is missing is downloaded once."""

    dataset: ClassVar[str] = "CIFAR100"  # class in torchvision.datasets

    def open(self, config: DataConfig, root: Path, download: bool) -> Source:
        kind, fetch = self._kind(), f"`rkd show data {config.name} --root {shlex.quote(str(root))}`"
        if not self.is_there(config, root):
            if not download:
                raise DataError(f"{config.name} is not in {str(root)!r}; {fetch} downloads it")
            self._download(config, root)
        try:
            sets = {split: kind(str(root), train=split == "train") for split in ("train", "test")}
        except RuntimeError as error:
            said = f"{str(root / kind.base_folder)!r} is damaged (the MD5 of a file differs)"
            raise DataError(f"{said}; delete it and run {fetch}") from error
        train, test = (np.asarray(each.targets, dtype=np.int64) for each in sets.values())
        names = tuple(sets["train"].classes)
        return Source(train, test, lambda split, indices: sets[split].data[indices], names)

    def files(self, config: DataConfig, root: Path) -> dict[str, Path]:
        kind = self._kind()
        listed = [file for file, _ in (*kind.train_list, *kind.test_list)]
        names = [f"{kind.base_folder}/{file}" for file in (*listed, kind.meta["filename"])]
        return {name: root / name for name in names}

    def _kind(self) -> Any:
        from torchvision import datasets  # takes a second to import: not before CIFAR is wanted

        return getattr(datasets, self.dataset)

    def _download(self, config: DataConfig, root: Path) -> None:
        kind = self._kind()
        try:
            root.mkdir(parents=True, exist_ok=True)
            # Several runs may start at once: the first downloads, the others wait and find the files there.
            with FileLock(root / f".{config.name}.lock"):
                if not self.is_there(config, root):
                    kind(str(root), train=True, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            said = str(error).strip().partition("\n")[0]
            raise DataError(
                f"{config.name} could not be downloaded to {str(root)!r} ({type(error).__name__}: {said}); "
                f"without a network, put the unpacked folder {kind.base_folder} of {kind.filename} there"
            ) from error


@register_source("cifar10")
class Cifar10(Cifar100):
    """The same numbers of images as CIFAR-100 has, in 10 classes."""

    dataset = "CIFAR10"
