r"""Time and memory of long lists of images: reading, sharing, and an epoch of names by workers.

    python benchmarks/lists.py --lines 1000000 6000000 --processes 2 --workers 4

For each number of lines a list like ImageNet's is written. Then it is timed what reading it by
itself takes a process, what making the files that processes share takes, and opening them; each in
a process of its own, whose peak memory is told. Last, so many processes of a run with so many
workers each go through the batches of an epoch, in which an image is its name and label alone: the
proportional set size (PSS: memory that several processes map is divided among them) of all these
processes and this one, and what of it no file stands behind, so that the system cannot take it
back, at several points. Nothing is decoded. Linux.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy

from ppcls_nextvit.cli.common import program
from ppcls_nextvit.data import list_cache
from ppcls_nextvit.data.datasets.classification import ImageNetDataset
from ppcls_nextvit.data.loader import Loader, LoaderOptions
from ppcls_nextvit.data.packed import read_packed_list
from ppcls_nextvit.data.samplers import DistributedBatchSampler

OPS = [{"DecodeImage": None}]
BATCH = 1024
CONTEXT = multiprocessing.get_context("fork")
CLASSES = 1000
BLOCK = 100_000  # lines written at a time


def write_list(path, lines):
    """A list of `lines` images, with names as long as ImageNet's."""
    with open(path, "w") as file:
        for start in range(0, lines, BLOCK):
            numbers = range(start, min(lines, start + BLOCK))
            file.writelines(
                f"train/n{i % CLASSES:08d}/n{i % CLASSES:08d}_{i}.JPEG {i % CLASSES}\n"
                for i in numbers
            )


class Named(ImageNetDataset):
    """A list, of whose images the names and labels alone are read."""

    sample_bytes = 16

    def load(self, index, rng):
        """{image: the name's length, label: int}."""
        return {
            "image": numpy.array([len(self.names[index])], numpy.float32),
            "label": self.labels[index],
        }


class NoFiles:
    """Files that nobody reads."""

    def check(self, names, each=True):
        """Nothing."""

    def read_ahead(self, names):
        """Nothing."""

    def path(self, name):
        return name


def timed(act, results):
    since, cpu = time.perf_counter(), time.process_time()
    act()
    results.put(
        {
            "s": time.perf_counter() - since,
            "cpu_s": time.process_time() - cpu,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


def in_a_process(act):
    """{s, cpu_s, peak_mb} of `act()` in a process of its own."""
    results = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=timed, args=(act, results))
    process.start()
    process.join()
    if process.exitcode:
        raise ValueError(f"a process ended with {process.exitcode}")
    return results.get()


def memory_mb(processes):
    """(PSS of all processes, what of it no file stands behind) in MB."""
    pss = anonymous = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # a worker that has loaded its last batch
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name == "Pss":
                pss += int(value.split()[0])
            elif name == "Pss_Anon":
                anonymous += int(value.split()[0])
    return round(pss / 1024), round(anonymous / 1024)


def children_of(process):
    """The processes below `process`, itself included."""
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children_of(int(child))
    return found


def epoch(path, cache, rank, args, told, go_on):
    """One process of a run: its share of an epoch, waiting at each point."""
    from ppcls_nextvit.data.datasets import classification

    classification.open_files = lambda *_: NoFiles()
    dataset = Named(
        CLASSES,
        image_root=".",
        cls_label_path=str(path),
        transform_ops=OPS,
        remote={"cache": str(cache)},
    )
    sampler = DistributedBatchSampler(
        dataset, rank, args.processes, 0, True, batch_size=BATCH, drop_last=True, shuffle=True
    )
    loader = Loader(dataset, sampler, LoaderOptions(num_workers=args.workers))
    batches = int(len(loader) * args.share)
    points = [max(1, round(batches * share)) for share in numpy.linspace(0, 1, args.points)]
    iterator = loader.epoch(0)
    for done in range(1, batches + 1):
        next(iterator)
        if done in points:
            told.put((rank, done * BATCH))
            go_on.acquire()
    iterator.close()


def through_an_epoch(path, cache, args):
    """[{images, pss_mb, anonymous_mb}] at the points of an epoch of all processes."""
    told, rows = CONTEXT.SimpleQueue(), []
    pauses = [CONTEXT.Semaphore(0) for _ in range(args.processes)]
    running = [
        CONTEXT.Process(target=epoch, args=(path, cache, rank, args, told, pauses[rank]))
        for rank in range(args.processes)
    ]
    for process in running:
        process.start()
    for _ in range(args.points):
        seen = sum(told.get()[1] for _ in running)
        pss, anonymous = memory_mb(children_of(os.getpid()))
        rows.append({"images": seen, "pss_mb": pss, "anonymous_mb": anonymous})
        for pause in pauses:
            pause.release()
    for process in running:
        process.join()
    return rows


def measured(lines, folder, args):
    """All figures of a list of so many lines."""
    path, cache = folder / "list.txt", folder / "cache"
    write_list(path, lines)

    def shared():
        list_cache.read_shared_list(path, str(cache), CLASSES)

    found = {
        "lines": lines,
        "list_mb": path.stat().st_size / 1e6,
        "by itself": in_a_process(lambda: read_packed_list(path, CLASSES)),
        "made": in_a_process(shared),
        "opened": in_a_process(shared),
    }
    files = [file for file in cache.rglob("*") if file.is_file()]
    found["bytes_an_image"] = sum(file.stat().st_size for file in files) / lines
    if args.points:
        found["epoch"] = through_an_epoch(path, cache, args)
    return found


def parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--processes", type=int, default=2, help="of the run on this machine")
    parser.add_argument("--workers", type=int, default=4, help="of each process")
    parser.add_argument("--share", type=float, default=1.0, help="of the epoch that is loaded")
    parser.add_argument(
        "--points", type=int, default=5, help="at which memory is looked at; 0: none"
    )
    parser.add_argument(
        "--alone", action="store_true", help="each process holds the list by itself, to compare"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    return parser


@program
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    list_cache.LEAST_BYTES = 1 << 60 if args.alone else 1
    found = []
    for lines in args.lines:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(lines, Path(folder), args))
        one = found[-1]
        print(f"{lines} lines, {one['list_mb']:.0f} MB, {one['bytes_an_image']:.1f} bytes an image")
        for name in ("by itself", "made", "opened"):
            print(
                f"  {name}: {one[name]['s']:.2f} s, {one[name]['cpu_s']:.2f} s of a core, peak "
                f"{one[name]['peak_mb']:.0f} MB"
            )
        for row in one.get("epoch", ()):
            print(
                f"  after {row['images']} images: {row['pss_mb']} MB in all processes, of which "
                f"{row['anonymous_mb']} MB no file stands behind"
            )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
