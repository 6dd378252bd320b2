r"""What the data of large runs need: measured rates of a core, and from them cores, bandwidth and
memory.

    python benchmarks/data_scale.py --gpu-images-per-s 1000 --gpus 8 64 512

Made-up photos of 500 x 375 are read and transformed by the 224 recipe from memory (decoding and
transforms alone), from files, a zip file, shards, and shards of a local HTTP server (without a
cache); then an epoch of the loader from memory by several processes at once, which slow each other
down, and by the loader with as many workers, whose shares are of that. All take turns. Rates are by
processor time, of all threads and processes on the reading side, so that other work on the machine
changes them little: images per second that one core, kept busy, loads.

The table multiplies: nothing in it was run. Its assumptions are printed beside it; each is an
argument or a figure measured above.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

from timed_engines.pipelines import AVERAGE, pictures

from ppcls_nextvit.cli.common import program
from ppcls_nextvit.data import build_loader
from ppcls_nextvit.data.memory import keep_freed_memory
from ppcls_nextvit.data.samplers import generator
from ppcls_nextvit.data.shards import make_shards
from ppcls_nextvit.tasks import load_config

CONTEXT = multiprocessing.get_context("fork")
RECIPE = Path(__file__).parents[1] / "configs" / "NextViT_small_224.yaml"
PIXELS = 3 * 224 * 224 * 4  # bytes of an image in a batch
LINE_BYTES = 16  # of an image of a list beside its line
INDEX_BYTES = 40  # of an image of shards beside its name
NAME_BYTES = 37  # of a name, as ImageNet's
PLACE_BYTES = 8  # of an image in an epoch's order
DIFFERENT = 48  # pictures, of which the others are copies
SHARE = 6  # of the images, one in so many is loaded in one process in each turn
WORKER_BYTES = 150 << 20  # of a worker by itself


def serve(root, told):
    """A server of the folder `root` that answers ranges, until it is ended."""
    from aiohttp import web

    async def started(app):
        told.put(None)

    application = web.Application()
    application.router.add_static("/", root)
    application.on_startup.append(started)
    web.run_app(application, host="127.0.0.1", port=PORT, print=None)


PORT = 18765
AT_ONCE = "memory, processes at once"


@contextlib.contextmanager
def serving(root):
    """The address of the folder `root` on a server of this machine, within the block."""
    told = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=serve, args=(root, told), daemon=True)
    process.start()
    told.get()
    time.sleep(0.5)
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.join()


def write_places(folder, count):
    """The pictures as files with a list, in a zip file and in shards; the bytes of one."""
    images = folder / "images"
    images.mkdir()
    files = pictures(min(count, DIFFERENT), AVERAGE)
    for number in range(count):
        (images / f"{number}.jpg").write_bytes(files[number % len(files)])
    lines = "".join(f"{number}.jpg {number % 10}\n" for number in range(count))
    (folder / "list.txt").write_text(lines)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in images.iterdir():
            archive.write(path, path.name)
    source = loader_of(listed(folder, images), 0, count).dataset
    make_shards(source, range(count), str(folder / "shards"))
    return statistics.mean(map(len, files))


def listed(folder, root):
    return {
        "name": "ImageNetDataset",
        "image_root": str(root),
        "cls_label_path": str(folder / "list.txt"),
    }


def sharded(root, **more):
    return {"name": "ImageShards", "image_root": f"{root}/shards", **more}


def loader_of(dataset, workers, batch):
    """The loader of a dataset with the recipe's transforms, in the order of its images."""
    recipe = load_config(RECIPE).DataLoader["Train"]["dataset"]["transform_ops"]
    section = {
        "dataset": {**dataset, "transform_ops": recipe},
        "sampler": {"batch_size": batch, "shuffle": True},
        "loader": {"num_workers": workers},
    }
    return build_loader(section, "Train", num_classes=10)


def spent():
    """Seconds of the processor that this process and its finished children have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def draws(index, occurrence=0):
    """The generator that the loader gives the transforms in its first epoch."""
    return generator("sample", 0, 0, index, occurrence)


def from_memory(dataset, places):
    """A function that transforms images, (index, occurrence), whose files are in memory."""
    files = [dataset.read(index) for index, _ in places]

    def run():
        for place, data in zip(places, files):
            dataset.transform(data, draws(*place), "")

    return run


def at_once(loader, processes):
    """A function that has so many processes transform the images of the loader's first epoch, each
    its part of them, from memory.
    """
    places = list(zip(*(part.tolist() for part in loader.sampler.order(0))))
    parts = [from_memory(loader.dataset, places[k::processes]) for k in range(processes)]

    def runs():
        running = [CONTEXT.Process(target=part) for part in parts]
        for process in running:
            process.start()
        for process in running:
            process.join()

    return runs


def by_itself(dataset, count):
    """A function that loads `count` images of a dataset in this process, one by one."""

    def run():
        dataset.read_ahead(range(count))
        for index in range(count):
            dataset.load(index, draws(index))

    return run


def through(loader):
    """A function that goes through an epoch of a loader, to the end of its workers."""

    def run():
        for _ in loader.epoch(0):
            pass

    return run


def rates(ways, rounds):
    """{way: [images per second of a core in each round]} of ways, {name: (run, images)}, that take
    turns; of each first run, which fills caches, nothing is kept.
    """
    found = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (run, images) in ways.items():
            before = spent()
            run()
            if number:
                found[name].append(images / (spent() - before))
    return found


def measure(args, folder):
    """(rates of each way, bytes of a picture)."""
    count = args.images
    image_bytes = write_places(folder, count)
    files = listed(folder, folder / "images")
    with serving(folder) as address:
        remote = {"cache": str(folder / "cache"), "cache_bytes": 0}
        singly = {
            "files": files,
            "zip": listed(folder, folder / "images.zip"),
            "shards": sharded(folder),
            "http": sharded(address, remote=remote),
        }
        few = max(1, count // SHARE)
        sets = {name: loader_of(dataset, 0, 16).dataset for name, dataset in singly.items()}
        memory = from_memory(sets["files"], [(index, 0) for index in range(few)])
        ways = {"memory": (memory, few)}
        ways |= {name: (by_itself(dataset, few), few) for name, dataset in sets.items()}
        ways[AT_ONCE] = (at_once(loader_of(files, 0, 16), args.workers), count)
        for name in ("files", "shards"):
            loader = loader_of(singly[name], args.workers, 16)
            ways[f"loader, {name}"] = (through(loader), count)
        return rates(ways, args.rounds), image_bytes


def needs(args, rate, image_bytes):
    """One row for each number of images and of GPUs, as dicts."""
    for images in args.dataset_images:
        for gpus in args.gpus:
            wanted = gpus * args.gpu_images_per_s
            machine_gpus = min(gpus, args.gpus_of_a_machine)
            cores = machine_gpus * args.gpu_images_per_s / rate
            workers = -(-cores // 1)
            index = INDEX_BYTES + NAME_BYTES
            order = PLACE_BYTES * (images * machine_gpus + 2 * images * machine_gpus / gpus)
            in_flight = (2 * workers + 2 * machine_gpus) * args.batch * PIXELS
            yield {
                "images": images,
                "GPUs": gpus,
                "images/s": round(wanted),
                "epoch min": round(images / wanted / 60, 1),
                "cores": round(gpus * args.gpu_images_per_s / rate),
                "cores a machine": round(cores),
                "GB/s": round(wanted * image_bytes / 1e9, 2),
                "GB/s a machine": round(
                    machine_gpus * args.gpu_images_per_s * image_bytes / 1e9, 2
                ),
                "index GB a machine": round(images * index / 1e9, 1),
                "order GB a machine": round(order / 1e9, 1),
                "workers GB a machine": round((workers * WORKER_BYTES + in_flight) / 1e9, 1),
            }


def markdown(rows):
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([f"{row[key]:,}" for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=960, help="of an epoch of the loader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of the loader that is measured")
    parser.add_argument("--gpu-images-per-s", type=float, default=1000, help="that a GPU trains")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--gpus-of-a-machine", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256, help="of a GPU")
    parser.add_argument(
        "--dataset-images", type=int, nargs="+", default=[6_000_000, 400_000_000], metavar="N"
    )
    parser.add_argument(
        "--image-bytes", type=int, help="of a file of the dataset (default: of those made here)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    return parser


@program
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    keep_freed_memory()  # as training does
    with tempfile.TemporaryDirectory() as folder:
        found, image_bytes = measure(args, Path(folder))
    best = {name: max(values) for name, values in found.items()}
    print("| from | images/s of a core | share of memory's |\n|---|---|---|")
    whole = "memory"
    for name, values in found.items():
        whole = AT_ONCE if name == AT_ONCE else whole
        pairs = zip(values, found[whole])
        share = statistics.median(one / other for one, other in pairs)
        print(f"| {name} | {statistics.median(values):.0f} (best {best[name]:.0f}) | {share:.3f} |")
    rate = statistics.median(found["loader, shards"])
    image_bytes = args.image_bytes or image_bytes
    rows = list(needs(args, rate, image_bytes))
    print(f"\n{markdown(rows)}\n")
    print(
        f"Assumed: a GPU trains {args.gpu_images_per_s:g} images/s with batches of {args.batch}; "
        f"{args.gpus_of_a_machine} GPUs and as many processes a machine; a core loads {rate:.0f} "
        f"images/s (shards, through the loader, measured above), a file has {image_bytes:.0f} "
        f"bytes, a name {NAME_BYTES}; every image is read once an epoch over the network; a worker "
        f"for each core, of {WORKER_BYTES >> 20} MiB and 2 batches, and 2 batches a GPU in memory; "
        f"the order has {PLACE_BYTES} bytes an image in each process while it is drawn, twice that "
        f"for each of its own images after."
    )
    if args.json:
        content = {"rates": found, "image_bytes": image_bytes, "needs": rows}
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
