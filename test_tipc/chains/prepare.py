"""Data and models of the chains, from what the repository holds: `bash test_tipc/prepare.sh
CONFIG.txt MODE [--data DIR | --url URL]`.

test_tipc/data/lite and whole: Fashion-MNIST's images as a user's own set is laid out
(train_list.txt, val_list.txt, labels.txt, images); detectors and segmentors have the cell nuclei
that their recipes name.
test_tipc/data/images: what is predicted. test_tipc/models: seeded random weights and their export,
whose predictions results/ holds. Nothing is fetched but what --url names.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

from ppcls_nextvit.data.lists import read_class_names
from ppcls_nextvit.models import list_models

from .params import ParamsError, command_options, read_params
from .run import DATA, MODELS, ROOT, chain_program, checkout_environment, interpreter, prepared

__all__ = ["data_options", "seeded_weights"]

SOURCE = ROOT / "dataset" / "fashion_mnist"
PHOTOS = ROOT / "ppcls_nextvit" / "export" / "photos"
LITE = {"train": 16, "val": 8}  # images of data/lite
SET_FILES = ("train_list.txt", "val_list.txt", "labels.txt")
A_SET = (
    "a set has train_list.txt and val_list.txt (a line `image label` for each image, relative to "
    "the folder) and labels.txt "
    "(a line `index name` for each class)"
)
TRAINING = {  # mode: its training and its validation set
    "lite_train_lite_infer": ("lite", "lite"),
    "lite_train_whole_infer": ("lite", "whole"),
    "whole_train_whole_infer": ("whole", "whole"),
    "benchmark_train": ("lite", "lite"),
}
INFERENCE = {
    mode: ("lite", "lite")
    for mode in ("ptq_infer", "cpp_infer", "serving_infer", "lite_infer", "paddle2onnx_infer")
}
INFERENCE["whole_infer"] = ("whole", "whole")
SETS = {**TRAINING, **INFERENCE}


def data_options(params, mode, sets=None):
    """The options `-o key=value` that give a program of tools/ the data of `mode`: images, lists,
    number and names of the classes; none for a detector or a segmentor, whose recipe names them.

    sets: others than the mode's own. FileNotFoundError, which says to run prepare.sh, if they are
    not there.
    """
    if is_dense(params):
        return []
    values, labels = {}, []
    for section, split, name in zip(("Train", "Eval"), ("train", "val"), sets or SETS[mode]):
        folder = prepared(Path("test_tipc/data") / name, params, mode)
        values[f"DataLoader.{section}.dataset.image_root"] = folder
        values[f"DataLoader.{section}.dataset.cls_label_path"] = prepared(
            folder / f"{split}_list.txt", params, mode
        )
        labels.append(prepared(folder / "labels.txt", params, mode))
    names = [read_class_names(ROOT / path) for path in labels]
    if names[0] != names[1]:
        raise ValueError(
            f"{labels[0]} has {len(names[0])} classes, {labels[1]} {len(names[1])} or others; a "
            f"set of your own goes with "
            "weights trained on it: in mode whole_train_whole_infer, or those that infer_params "
            "names in mode whole_infer"
        )
    values |= {"Arch.class_num": len(names[0]), "Infer.PostProcess.class_id_map_file": labels[0]}
    return [
        part for key, value in values.items() for part in command_options(f"-o {key}", str(value))
    ]


def is_dense(params):
    """Whether a file is a detector's or a segmentor's."""
    return model_name(params) in list_models("detection") + list_models("segmentation")


def seeded_weights(model):
    """The file of a model's seeded weights, relative to the root."""
    return (MODELS / f"{model}.pdparams").relative_to(ROOT)


def make(target, fill):
    """Let `fill(folder)` write a new folder, and put it at `target` whole, so that nobody finds a
    part of it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fill(Path(folder) / "new")
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(Path(folder) / "old")
        (Path(folder) / "new").rename(target)


def make_set(folder, **counts):
    """A set of `train` and `val` images, equally spaced in the repository's own lists; all of those
    that are not counted.
    """
    with zipfile.ZipFile(SOURCE / "images.zip") as archive:
        for split, source in (("train", "train"), ("val", "test")):
            lines = (SOURCE / f"{source}_list.txt").read_text(encoding="utf-8").splitlines()
            count = counts.get(split, len(lines))
            (folder / split).mkdir(parents=True)
            with open(folder / f"{split}_list.txt", "w", encoding="utf-8") as stream:
                for line in lines[:: len(lines) // count][:count]:
                    path, label = line.rsplit(" ", 1)
                    name = f"{split}/{Path(path).name}"
                    (folder / name).write_bytes(archive.read(path))
                    stream.write(f"{name} {label}\n")
    shutil.copy(SOURCE / "labels.txt", folder)


def make_images(folder):
    """What the chains predict: the photos, and the validation images of data/lite."""
    folder.mkdir()
    for path in [*PHOTOS.glob("*.jpg"), *(DATA / "lite" / "val").iterdir()]:
        shutil.copy(path, folder)


def make_data(mode, own=None):
    """The sets of `mode` and the images, but for those that are there; `own`: a folder that
    data/whole is a link to until next time.
    """
    whole = DATA / "whole"
    if own:
        missing = next((name for name in SET_FILES if not (own / name).is_file()), None)
        if missing:
            raise FileNotFoundError(f"{own / missing}: no such file; {A_SET}")
        make(whole, lambda folder: folder.symlink_to(own.resolve(), target_is_directory=True))
    elif "whole" in SETS[mode] and (whole.is_symlink() or not whole.exists()):
        make(whole, make_set)
    if not (DATA / "lite").exists():
        make(DATA / "lite", lambda folder: make_set(folder, **LITE))
    if not (DATA / "images").exists():
        make(DATA / "images", make_images)


def unpacked(url):
    """The folder of the set in the .zip or .tar* archive `url`, a path or an http(s) address,
    unpacked to test_tipc/data/archive.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(url)
        if url.startswith(("http://", "https://")):
            archive = Path(folder) / "archive"
            with urllib.request.urlopen(url) as response, open(archive, "wb") as stream:
                shutil.copyfileobj(response, stream)
        if not archive.is_file():
            raise FileNotFoundError(
                f"{url}: no such file; --url takes a .zip or .tar archive, or its http(s) address"
            )
        try:
            make(DATA / "archive", lambda target: unpack(archive, target, url))
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{url}: damaged or unsafe: {error}") from error
    found = next((DATA / "archive").rglob(SET_FILES[0]), None)
    if found is None:
        raise FileNotFoundError(f"{url}: no {SET_FILES[0]} in it; {A_SET}")
    return found.parent


def check_room(needed, target, url):
    """ValueError if the disk of `target`, a new folder, has no room for `needed` bytes."""
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ValueError(f"{url}: unpacked it has {needed} bytes, and {free} are free")


def unpack(archive, target, url):
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as stream:
            check_room(sum(member.file_size for member in stream.infolist()), target, url)
            stream.extractall(target)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as stream:
            check_room(sum(member.size for member in stream), target, url)
            stream.extractall(target, filter="data")  # nothing outside of it, no devices
    else:
        raise ValueError(f"{url}: not a .zip or .tar archive, or cut short")


def make_model(params, mode, model):
    """models/MODEL.pdparams, seeded, and in a mode of INFERENCE its export models/MODEL, by the
    command of the model's txt file of the training chain.
    """
    own = read_params(params.path.parent / f"{model}_train_infer_python.txt")
    python = interpreter(own["train_params"].text("python"))
    program, *options = shlex.split(own["infer_params"].text("norm_export"))
    options += data_options(params, mode, ("lite", "lite"))
    weights, folder = seeded_weights(model), MODELS.relative_to(ROOT) / model
    commands = [[python, "-m", "test_tipc.chains.seeded", str(weights), *options]]
    if mode in INFERENCE:
        places = {"Global.pretrained_model": weights, "Global.save_inference_dir": folder}
        given = [part for key, value in places.items() for part in ("-o", f"{key}={value}")]
        commands.append([python, program, *options, *given])
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, env=checkout_environment(ROOT))
        if done.returncode:
            raise OSError(f"exit status {done.returncode} of: {shlex.join(command)}")


def model_name(params):
    """The model of any chain's file. ParamsError if it names none."""
    for section in params.values():
        for key in ("model_name", "clas_model_file"):
            if key in section.entries:
                return section.text(key)
    raise ParamsError(
        f"{params.path}: no line with the key 'model_name'; expected one of the files of "
        f"test_tipc/configs"
    )


@chain_program(tuple(SETS))
def main(params, mode, *options):
    parser = argparse.ArgumentParser(prog="prepare.sh CONFIG.txt MODE")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"make data/whole of a set of your own, which is only read; {A_SET}",
    )
    source.add_argument(
        "--url", help="the same from a .zip or .tar archive: a path, or an http(s) address to fetch"
    )
    args = parser.parse_args(options)
    if (args.data or args.url) and "whole" not in SETS[mode]:
        raise ValueError(
            f"{mode} reads no set of your own; --data and --url are for "
            f"{', '.join(m for m in SETS if 'whole' in SETS[m])}"
        )
    model, dense = model_name(params), is_dense(params)
    if not dense:
        make_data(mode, unpacked(args.url) if args.url else args.data)
    elif args.data or args.url:
        raise ValueError(
            f"{model} has no set of your own here: its recipe names the images; --data and --url "
            f"are for classifiers"
        )
    if dense or mode in INFERENCE:
        make_model(params, mode, model)
    made = [DATA] * (not dense) + [MODELS / model] * (dense or mode in INFERENCE)
    listed = ", ".join(os.path.relpath(path, ROOT) for path in made)
    print(f"prepared for {model} in mode {mode}: {listed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
