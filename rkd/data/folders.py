"""A user's own images as files in class folders, and torchvision's data sets: decoded once, into arrays beside the data
that are read from disk as needed.

Layouts of a folder (class folders sorted by name, files at any depth, as in torchvision's ImageFolder):

- parts `train/` and, the first of these that exists, `test/`, `val/`, `valid/` or `validation/`;
- the same in TinyImageNet's form, where a file `val_annotations.txt` names the classes of `val/images`;
- class folders alone, with a share of their images set aside for tests (`test_share`).
"""

import hashlib
import inspect
import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from rkd import paths
from rkd.data.sources import (
    FOLDER,
    TORCHVISION,
    DataConfig,
    Reader,
    Source,
    compare_parts,
    join_names,
    pixel_hash,
    register_source,
)
from rkd.data.subsets import choose
from rkd.errors import DataError, one_line

if TYPE_CHECKING:  # its import takes a tenth of a second, and only decoding needs it
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
TESTS = ("test", "val", "valid", "validation")
SPLITS = ("train", "test")
FORMAT = "rkd decoded 2"


@dataclass(frozen=True)
class Listing:
    """The images of a data set before they are decoded.

    Attributes:
        names: of the images, by split, for messages.
        labels: by split, (N,) int64.
        image: opens an image, given split and number.
        key: text that differs whenever the images may have changed.
        cache: folder for the decoded images.
        notes: oddities of the layout, for people.
    """

    names: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    image: "Callable[[str, int], Image.Image]"
    key: str
    cache: Path
    notes: tuple[str, ...] = ()


class Decoded(Reader):
    """Base of both kinds of sets: images are decoded once, and read from disk from then on."""

    decodes = True

    @abstractmethod
    def list(self, config: DataConfig, root: Path, download: bool) -> Listing:
        """Return the images, none of them opened yet; raise DataError if there are none, or they fit no layout."""

    def identity(self, config: DataConfig, root: Path) -> str:
        return self._decoded(config, root, True)[1]["sha256"]

    def open(self, config: DataConfig, root: Path, download: bool) -> Source:
        folder, about, listing = self._decoded(config, root, download)
        # Pages of the file are read when they are needed; a write would stay in memory.
        arrays = {split: np.load(folder / f"{split}.npy", mmap_mode="c") for split in SPLITS}
        found = _checksum(arrays, listing.labels, listing.class_names)
        if found != about["sha256"]:
            raise DataError(
                f"{folder} is damaged: its checksum differs; delete it to decode the images again"
            )
        if config.sha256 not in (None, found):
            raise DataError(f"the images of {config.name} are not those this run was planned with")

        def pixels(split: str, indices: np.ndarray) -> np.ndarray:
            whole = len(indices) == len(arrays[split]) and (np.diff(indices) == 1).all()
            return arrays[split] if whole else arrays[split][indices]

        train, test = (listing.labels[split] for split in SPLITS)
        return Source(train, test, pixels, listing.class_names, (*listing.notes, *about["notes"]))

    def _decoded(self, config: DataConfig, root: Path, download: bool) -> tuple[Path, dict, Listing]:
        try:
            listing = self.list(config, root, download)
        except (OSError, UnicodeError) as error:  # a user's folder may be in any state
            raise DataError(f"{config.name} cannot be read: {one_line(error)}") from error
        told = json.dumps([FORMAT, config.image_size, listing.key])
        folder = listing.cache / hashlib.sha256(told.encode()).hexdigest()[:12]
        if not folder.is_dir():
            try:
                listing.cache.mkdir(parents=True, exist_ok=True)
                with FileLock(listing.cache / ".lock"):  # of runs that start at once, only one decodes
                    if not folder.is_dir():
                        _decode(listing, config, folder)
            except OSError as error:
                said = error.strerror or error
                raise DataError(f"decoded images cannot be kept in {listing.cache}: {said}") from error
        return folder, json.loads((folder / "about.json").read_text(encoding="utf-8")), listing


@register_source(FOLDER)
class Folder(Decoded):
    """Image files in class folders."""

    def list(self, config: DataConfig, root: Path, download: bool) -> Listing:
        from PIL import Image

        folder = _place(config.name, root)
        every, files = _parts(folder, config)
        classes = tuple(sorted(name for name, images in every.items() if images))
        tested = {name for name, found in files["test"].items() if found}
        if tested - {*classes}:
            names = join_names([*map(repr, sorted(tested - {*classes}))])
            raise DataError(f"{folder} has images of class {names} for tests, but none to train on")
        if not tested:
            raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)}) in folders of their classes")
        images = {
            split: [path for name in classes for path in files[split].get(name, [])] for split in SPLITS
        }
        names = {split: [path.relative_to(folder).as_posix() for path in images[split]] for split in SPLITS}
        counts = {split: [len(files[split].get(name, [])) for name in classes] for split in SPLITS}
        labels = {
            split: np.repeat(np.arange(len(classes), dtype=np.int64), counts[split]) for split in SPLITS
        }
        stats = [(names[split][i], path.stat()) for split in SPLITS for i, path in enumerate(images[split])]
        key = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        cache = folder.resolve().with_name(f"{folder.resolve().name}.decoded")
        empty = sorted(every.keys() - {*classes})
        notes = (f"{len(empty)} folders hold no images to train on: {join_names(empty)}",) if empty else ()
        return Listing(names, labels, classes, lambda s, i: Image.open(images[s][i]), key, cache, notes)


@register_source(TORCHVISION)
class Torchvision(Decoded):
    """A torchvision classification data set, by its class's name: "torchvision:STL10", "torchvision:FashionMNIST"."""

    def list(self, config: DataConfig, root: Path, download: bool) -> Listing:
        from torchvision import datasets

        name = config.name.removeprefix(TORCHVISION)
        kind = getattr(datasets, name, None)
        known = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
        if "root" not in known or not {"train", "split"} & known.keys():
            raise DataError(f"torchvision has no data set {name!r} with parts for training and tests")
        parts = {s: {"train": s == "train"} if "train" in known else {"split": s} for s in SPLITS}
        fetch = {"download": download} if "download" in known else {}
        try:
            sets = {split: kind(str(root), **part, **fetch) for split, part in parts.items()}
        except (RuntimeError, OSError, ValueError, ModuleNotFoundError) as error:
            said = one_line(error)
            raise DataError(f"torchvision's {name} cannot be had in {str(root)!r}: {said}") from error
        labels = {split: _labels(found, name) for split, found in sets.items()}
        count = 1 + max(int(each.max()) for each in labels.values())
        classes = tuple(map(str, getattr(sets["train"], "classes", range(count))))
        names = {split: [f"{split} image {i}" for i in range(len(found))] for split, found in sets.items()}
        return Listing(names, labels, classes, lambda s, i: sets[s][i][0], name, root / f"{name}.decoded")


def _labels(found: Any, name: str) -> np.ndarray:
    for attribute in ("targets", "labels", "_labels", "_samples"):
        if (labels := getattr(found, attribute, None)) is not None:
            labels = [label[1] if isinstance(label, tuple) else label for label in labels]
            return np.asarray(labels, dtype=np.int64)
    remedy = "write its images to a folder or an npz file"
    raise DataError(f"torchvision's {name} does not say its labels; {remedy}")


def _place(name: str, root: Path) -> Path:
    for path in paths.dataset_candidates(name, root):
        if os.path.isdir(path):  # False, and no error, for a name that no file system has
            return path
    raise DataError(f"the folder of images {name!r} is neither in the working directory nor in {str(root)!r}")


Files = dict[str, list[Path]]  # images by class


def _parts(folder: Path, config: DataConfig) -> tuple[Files, dict[str, Files]]:
    """Return by class the images a folder has to train on, empty classes included, and its images by split."""
    train = folder / "train"
    if not train.is_dir():
        every = _by_class(folder)
        classes = sorted(name for name, images in every.items() if images)
        return every, _shared(every, classes, config, folder) if classes else {split: {} for split in SPLITS}
    if not (tests := [name for name in TESTS if (folder / name).is_dir()]):
        raise DataError(f"{folder} has a part train/, but none of {', '.join(f'{n}/' for n in TESTS)}")
    if config.test_share is not None:
        raise DataError(f"test_share is {config.test_share:g}, but {folder} has a part {tests[0]}/ for tests")
    every = _by_class(train)
    return every, {"train": every, "test": _by_class(folder / tests[0])}


def _by_class(part: Path) -> Files:
    """Return the image files by class, in order; an empty list for a folder that holds none."""
    annotations = part / "val_annotations.txt"
    if annotations.is_file():
        found: Files = {}
        for line in sorted(annotations.read_text(encoding="utf-8").splitlines()):
            file, name, *_ = [*line.split("\t"), ""]
            found.setdefault(name, []).append(part / "images" / file)
        return found
    folders = sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {
        folder.name: [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES]
        for folder in folders
    }


def _shared(every: Files, classes: list[str], config: DataConfig, folder: Path) -> dict[str, Files]:
    """Set a share of each class's images aside for tests; the data set's seed fixes the choice."""
    if config.test_share is None:
        raise DataError(
            f"{folder} has no parts train/ and test/; say which share of its images is for tests, for example "
            "test_share=0.2"
        )
    files: dict[str, Files] = {split: {} for split in SPLITS}
    for name in classes:
        count = max(1, round(config.test_share * len(every[name])))
        if count >= len(every[name]):
            said = f"has {len(every[name])} images, too few for test_share={config.test_share:g}"
            raise DataError(f"class {name!r} {said}")
        alike = np.zeros(len(every[name]), dtype=np.int64)
        for split, chosen in zip(SPLITS, choose(alike, 1, None, count, config.seed, "training"), strict=True):
            files[split][name] = [every[name][i] for i in chosen]
    return files


def _decode(listing: Listing, config: DataConfig, folder: Path) -> None:
    """Decode all images to arrays `train.npy` and `test.npy`, (N, H, H, 3) uint8, in a folder put in place whole."""
    size = config.image_size or _common_size(listing)
    every = sum(map(len, listing.names.values()))
    needed, free = every * size * size * 3, shutil.disk_usage(listing.cache).free
    words = f"{every:,} images of {size} x {size}, {needed / 1e6:,.0f} MB"
    if needed > free:
        raise DataError(f"{words} are to be kept in {listing.cache}, where {free / 1e6:,.0f} MB are free")
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    broken: list[str] = []
    prints: dict[str, list[tuple[bytes, str]]] = {split: [] for split in SPLITS}
    arrays, grey = {}, 0
    bar = tqdm(total=every, desc=f"decoding {words}, into {listing.cache.name}", unit=" images")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, names in listing.names.items():
            shape = (len(names), size, size, 3)
            arrays[split] = np.lib.format.open_memmap(temporary / f"{split}.npy", "w+", np.uint8, shape)
            one = partial(_into, arrays[split], partial(listing.image, split), size)
            for name, found in zip(names, pool.map(one, range(len(names))), strict=True):
                bar.update()
                if isinstance(found, str):
                    broken.append(f"{name} ({found})")
                else:
                    prints[split].append((found[0], name))
                    grey += found[1]
            arrays[split].flush()
    if broken:
        shutil.rmtree(temporary)
        names = join_names(broken, listing.cache / "unreadable.txt")
        raise DataError(f"{len(broken)} files cannot be read as images: {names}")
    notes = [f"{grey:,} of {every:,} images are grey: repeated to three channels"] if grey else []
    notes += compare_parts(prints, listing.labels, listing.class_names, listing.cache)
    sha256 = _checksum(arrays, listing.labels, listing.class_names)
    about = {"format": FORMAT, "size": size, "sha256": sha256, "notes": notes}
    (temporary / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    os.replace(temporary, folder)


def _into(
    x: np.ndarray, image: "Callable[[int], Image.Image]", size: int, number: int
) -> tuple[bytes, bool] | str:
    """Decode one image: resize its shorter side to `size` and take the middle. Return a hash of its pixels and whether
    it is grey, or what is wrong with it."""
    from PIL import Image, ImageOps

    try:
        with image(number) as opened:
            upright = _eight_bits(ImageOps.exif_transpose(opened), opened.format)
            grey = upright.mode in ("1", "L", "LA")
            x[number] = ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # decoders raise anything for a damaged file
        return one_line(error, 80)
    return pixel_hash(x[number]), grey


def _eight_bits(image: "Image.Image", form: str | None) -> "Image.Image":
    """Scale 16-bit grey to 8 bits, rounded; Pillow itself clips values at 255, which leaves a white image."""
    from PIL import Image

    # Older versions of Pillow call 16 bits "I", too.
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PNG"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} may be of any range: save it with 8 or 16 bits")
    return image


def _common_size(listing: Listing) -> int:
    """Return the side of all images if they are square and of one size; else raise a DataError that asks for a size."""
    found: dict[tuple[int, int], str] = {}
    for split in SPLITS:
        for number, name in enumerate(listing.names[split]):
            try:
                with listing.image(split, number) as image:
                    found.setdefault(image.size, name)
            except Exception:
                continue
            if len(found) > 1 or image.width != image.height:
                sizes = " and ".join(f"{w} x {h} ({name})" for (w, h), name in found.items())
                raise DataError(
                    f"images are of {sizes}; say which size they are to have, as in image_size=64"
                )
    return next((side for side, _ in found), 32)


def _checksum(arrays: dict[str, np.ndarray], labels: dict[str, np.ndarray], classes: tuple[str, ...]) -> str:
    total = hashlib.sha256(json.dumps(classes).encode())
    for split in SPLITS:
        total.update(f"{split} {arrays[split].shape}".encode())
        total.update(labels[split].tobytes())
        total.update(np.ascontiguousarray(arrays[split]).data)
    return total.hexdigest()
