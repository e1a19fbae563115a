"""Records and checkpoints at an fsspec URL: whole files, written atomically, and leases by exclusive file creation.

    records/ID.json   records/maps/ID.npz   work/ID/checkpoint.pt, last.pt, best.pt, log.txt   leases/ID/1, 2, ...

Whoever creates the next number among a run's leases holds the run; leases are never deleted, so two processes cannot
take over at once. The holder keeps writing something new to its lease, and finally "free". Others take over when
nothing new has appeared for `stale` seconds by their own clocks: no two clocks are compared.
"""

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rkd.errors import ConfigError, RkdError, one_line
from rkd.files import write_atomic
from rkd.records import Store

# Protocols that can create a file exclusively, which fsspec does not guarantee; all but the first write whole objects.
EXCLUSIVE = ("file", "memory", "s3")
WORK = ("checkpoint.pt", "last.pt", "best.pt", "log.txt")
FREE = b"free"
POLL_SECONDS = 1.0


def _files(store: Store, run: str, work: bool = True) -> list[tuple[Path, tuple[str, ...]]]:
    """Return the files a run may have, each as its path here and its path's parts in the storage; the record last."""
    there: dict[Path, tuple[str, ...]] = {
        store.folder(run) / name: ("work", run, name) for name in WORK if work
    }
    there |= {store.maps(run): ("records", "maps", f"{run}.npz"), store.path(run): ("records", f"{run}.json")}
    return [*there.items()]


class Storage:
    """The storage at a URL: a folder (path or file://), s3://bucket/folder, or memory:// (in this process only).

    Args:
        renew: seconds between writes to leases, and between looks for new files.
        stale: seconds without a write after which a lease is taken over.

    Raises:
        ConfigError: fsspec does not know the URL, or the storage cannot create files exclusively.
    """

    def __init__(self, url: str, renew: float = 10.0, stale: float = 60.0) -> None:
        import fsspec

        self._url = url
        try:
            self._fs, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError, OSError) as error:
            raise ConfigError(f"--storage {url}: {one_line(error)}") from error
        names = {self._fs.protocol} if isinstance(self._fs.protocol, str) else {*self._fs.protocol}
        if not names & {*EXCLUSIVE}:
            raise ConfigError(
                f"--storage {url}: no file can be created exclusively there, so that two nodes could train one run; "
                f"use a folder that all share, or one of {', '.join(EXCLUSIVE)}"
            )
        self._local = "file" in names
        self.renew, self.stale = renew, stale
        self._seen: dict[str, tuple[bytes, float]] = {}

    # --- files ----------------------------------------------------------------------------------------------

    def has(self, run: str) -> bool:
        """Whether the run is recorded in the storage."""
        return self._fs.exists(self._at("records", f"{run}.json"))

    def ids(self) -> set[str]:
        """Return the ids of all runs recorded in the storage; raise RkdError if it cannot be read."""
        try:
            names = self._names("records")
        except Exception as error:  # of whatever library is behind the URL
            raise RkdError(f"--storage {self._url} cannot be read: {one_line(error)}") from error
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def pull(self, store: Store, run: str, work: bool = True) -> None:
        """Download a run's record and maps, and with `work` its working files; the record comes last."""
        for path, parts in _files(store, run, work):
            with suppress(FileNotFoundError):
                write_atomic(path, self._fs.cat_file(self._at(*parts)))

    def push(self, store: Store, run: str, sent: dict[Path, int]) -> None:
        """Upload a run's new files, the record last; once it is recorded, delete its checkpoint from the storage.
        `sent` holds the modification times of the files uploaded so far and is updated."""
        for path, parts in _files(store, run):
            with suppress(FileNotFoundError):  # not made yet, or the run has ended at this moment
                if sent.get(path) != (time_ns := path.stat().st_mtime_ns):
                    self._put(path.read_bytes(), *parts)
                    sent[path] = time_ns
        if store.has(run) and self._fs.exists(begun := self._at("work", run, WORK[0])):
            self._fs.rm_file(begun)

    def match(self, store: Store, runs: Iterable[str], teachers: Iterable[str]) -> None:
        """Download records that only the storage has, and missing teachers' weights; upload runs recorded only here."""
        there, teachers = self.ids(), {*teachers}
        for run in runs:
            if run not in there and store.has(run):
                self.push(store, run, {})
            elif run in there:
                weights = run in teachers and not (store.folder(run) / "last.pt").exists()
                if weights or not store.has(run):
                    self.pull(store, run, work=weights)

    def _at(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def _names(self, *parts: str) -> list[str]:
        try:
            return [path.rpartition("/")[2] for path in self._fs.ls(self._at(*parts), detail=False)]
        except FileNotFoundError:
            return []

    def _put(self, data: bytes, *parts: str) -> None:
        if self._local:
            write_atomic(Path(self._at(*parts)), data)
        else:
            self._fs.pipe_file(self._at(*parts), data)

    # --- leases ---------------------------------------------------------------------------------------------

    def take(self, run: str) -> "Lease | None":
        """Take and return a lease of the run; None if another process holds it."""
        last = max(map(int, self._names("leases", run)), default=0)
        if last:
            found, now = self._fs.cat_file(self._at("leases", run, str(last))), time.monotonic()
            before, since = self._seen.setdefault(run, (found, now))
            if found != before:
                self._seen[run] = found, now
            if found != FREE and (found != before or now - since < self.stale):
                return None
        lease = Lease(self, run, last + 1)
        path = self._at("leases", run, str(lease.number))
        try:
            if self._local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as file:
                    file.write(lease.text())
            else:
                self._fs.pipe_file(path, lease.text(), mode="create")
        except OSError:  # S3's "precondition failed" has no name of its own
            if not self._fs.exists(path):
                raise
            return None
        return lease

    @contextmanager
    def kept(self, store: Store, leases: "list[Lease]") -> Iterator[Callable[[], bool]]:
        """Keep renewing leases and uploading what is new of their runs; at the end, upload once more and free them.
        Yields a function that tells whether a lease was lost: the block must then end, and nothing more is uploaded."""
        ending, lost, sent = threading.Event(), threading.Event(), dict[Path, int]()

        def keep() -> None:
            good = time.monotonic()
            while not ending.wait(self.renew) and not lost.is_set():
                try:
                    if not all([lease.renewed() for lease in leases]):
                        lost.set()
                        return
                    good = time.monotonic()
                    for lease in leases:
                        self.push(store, lease.run, sent)
                except Exception:  # a network error of any kind; the last push will show it
                    if time.monotonic() - good > self.stale / 2:
                        lost.set()

        thread = threading.Thread(target=keep, name="storage", daemon=True)
        thread.start()
        try:
            yield lost.is_set
        finally:
            ending.set()
            thread.join()
            for lease in leases:
                if not lost.is_set() and lease.renewed():
                    self.push(store, lease.run, sent)
                    lease.free()

    def shares(
        self, runs: Iterable[str], teachers: Iterable[str], stop: Callable[[float], bool], committed: Path
    ) -> Iterator[tuple[Store, set[str], Callable[[], bool]]]:
        """Yield, until all runs are recorded in the storage or were yielded here, or `stop` returns True: a temporary
        store with what the storage has of them and their teachers, the runs to train in it, and a function that tells
        whether a lease of theirs was lost. `committed`: folder of committed teachers on this machine, if any."""
        left = {run for run in runs if not self.has(run)}
        while left and not stop(0.0):
            leases = [lease for run in sorted(left) if (lease := self.take(run))]
            ours = {lease.run for lease in leases if not self.has(lease.run)}
            if not leases:
                time.sleep(min(POLL_SECONDS, self.renew))
            with ExitStack() as ends:
                if leases:
                    folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="rkd-")))
                    store = Store(folder / "records", folder / "work")
                    if committed.is_dir():
                        (folder / "teachers").symlink_to(committed)
                    lost = ends.enter_context(self.kept(store, leases))
                    for run in (*teachers, *ours):
                        self.pull(store, run)
                    yield store, ours, lost
            left = {run for run in left - ours if not self.has(run)}


class Lease:
    """This process's lease of one run; `number` is its place among the run's leases."""

    def __init__(self, storage: Storage, run: str, number: int) -> None:
        self._storage, self.run, self.number = storage, run, number
        self._count, self._owner = 0, uuid.uuid4().hex

    def text(self) -> bytes:
        """Return what to write to the lease next; never the same twice."""
        self._count += 1
        return f"{self._owner} {self._count}".encode()

    def renewed(self) -> bool:
        """Renew the lease and return True; return False if another process has taken over."""
        storage = self._storage
        if max(map(int, storage._names("leases", self.run)), default=0) > self.number:
            return False
        storage._put(self.text(), "leases", self.run, str(self.number))
        return True

    def free(self) -> None:
        """Free the lease, so that others can take the run."""
        self._storage._put(FREE, "leases", self.run, str(self.number))
