"""The pages' commands, run as a user would type them, in a copy of the repository in which
everything that takes long is small.

What is small, all of it here: the copy's networks have the fewest blocks, its configurations the
numbers in SMALLER, its sets a few images (the repository's own, in the layouts of ImageNet, COCO
and ADE20K), its weight files random numbers. Commands run verbatim; but programs
come from a folder first on PATH, which sends `python` through `stand_in`: nothing is installed or
downloaded, what would be is checked.

A page is one session of bash -e and, for its Python blocks, one interpreter. Comments above a block
say otherwise:
    <!-- not run: REASON -->    checked, not run: options, keys, paths (check_commands)
    <!-- needs: MODULE ... -->  run where these modules are installed, else as not run
    <!-- file: PATH -->         the block is written to PATH in the sandbox
"""

import argparse
import code
import importlib.util
import json
import os
import re
import runpy
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHALLOW = (1, 1, 5, 1)
SMALLER = [  # files, pattern, replacement
    (
        "ppcls_nextvit/models/backbones/nextvit.py",
        r"\(depths=\(\d+, \d+, \d+, \d+\)",
        f"(depths={SHALLOW}",
    ),
    (
        "ppcls_nextvit/models/segmentors/encoder_decoder.py",
        r"channels: int = \d+",
        "channels: int = 32",
    ),
    (
        "ppcls_nextvit/models/detectors/mask_rcnn.py",
        r"f(pn|c)_channels: int = \d+",
        r"f\1_channels: int = 32",
    ),
    ("configs/detection/*.yaml", r"\bf(pn|c)_channels: \d+", r"f\1_channels: 32"),
    ("configs/**/*.yaml", r"\bepochs: \d+", "epochs: 1"),
    ("configs/**/*.yaml", r"\bbatch_size: \d+", "batch_size: 2"),
    ("configs/**/*.yaml", r"\bnum_workers: \d+", "num_workers: 0"),
    # of a set that is smaller than a batch nothing would be left
    ("configs/**/*.yaml", r"\bdrop_last: True", "drop_last: False"),
    ("configs/**/*.yaml", r"\biterations: \d+", "iterations: 2"),
    ("configs/**/*.yaml", r"\bdevice: gpu", "device: cpu"),
    ("configs/paddleseg/*.yml", r"\biters: \d+", "iters: 2"),
    ("configs/paddleseg/*.yml", r"\bbatch_size: \d+", "batch_size: 2"),
    # pixels, and proposals
    *(
        (
            files,
            r"\[(\d{3,4}), (\d{3,4})\]",
            lambda pair: f"[{int(pair[1]) // 4}, {int(pair[2]) // 4}]",
        )
        for files in (
            "configs/detection/*.yaml",
            "configs/segmentation/*.yaml",
            "ppcls_nextvit/reproduce/datasets.py",
        )
    ),
    # two of each class
    (
        "dataset/fashion_mnist/train_list.txt",
        r"(?s).+",
        lambda whole: "".join(whole[0].splitlines(True)[::250]),
    ),
    (
        "dataset/fashion_mnist/test_list.txt",
        r"(?s).+",
        lambda whole: "".join(whole[0].splitlines(True)[::50]),
    ),
]
NOT_EXECUTED = (
    "apt-get",
    "sudo",
    "docker",
    "kubectl",
    "adb",
    "npm",
    "npx",
    "curl",
    "wget",
    "unzip",
    "vcpkg",
    "trtexec",
    "nvidia-smi",
    "open",
    "python3.7",
    "ssh",
    "scp",
    "rsync",
)
# the photos that exports are compared on
SYNSETS = {243: "n02108422", 541: "n03249569", 559: "n03376595", 22: "n01614925"}
LIMIT_S = 300  # of a page
# 3: the set is not complete, which a few images cannot be
ASKED_FOR_STATUS = {"tools/reproduce.py": 3}


# Pages.


@dataclass
class Block:
    """A fenced block. note: what the comment above it says, e.g. ('not run', 'hours'), or ('',
    '').
    """

    language: str
    text: str
    line: int
    note: tuple = ("", "")

    @property
    def runs(self):
        if self.language not in ("bash", "python") or self.note[0] in ("not run", "file"):
            return False
        return self.note[0] != "needs" or all(
            importlib.util.find_spec(module) for module in self.note[1].split()
        )


def blocks(text):
    """The fenced blocks of a page's text, in order."""
    found = []
    for match in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", text, re.M | re.S):
        note = re.search(r"<!-- (not run|needs|file): ([^\n]+?) -->\s*\Z", text[: match.start()])
        found.append(
            Block(
                match[2].strip(),
                textwrap.dedent(match[3]),
                text.count("\n", 0, match.start()) + 1,
                note.groups() if note else ("", ""),
            )
        )
    return found


# The sandbox.


def without_blocks(page):
    """The page's text without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page):
    """(target, anchor) of every link of the page within the repository; either may be empty."""
    text = re.sub("`[^`\n]*`", "", without_blocks(page))
    return re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text)


def make_template(folder):
    """A copy of the repository in `folder`, without what git ignores, its slow numbers made
    SMALLER, with tiny sets in the layouts of the large ones."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in (name for name in names if (ROOT / name).is_file()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for files, pattern, replacement in SMALLER:
        paths, changed = list(folder.glob(files)), 0
        for path in paths:
            text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
            path.write_text(text, encoding="utf-8")
            changed += count
        assert changed, f"nothing is {pattern} in {files}"
    make_imagenet(folder / "dataset" / "ILSVRC2012")
    make_coco(folder / "dataset" / "coco")
    make_ade20k(folder / "dataset" / "ADEChallengeData2016")
    shutil.copytree(
        ROOT / "ppcls_nextvit" / "export" / "photos",
        folder / "photos",
        ignore=shutil.ignore_patterns("README.md", "LICENSE"),
    )
    shutil.copy(next((folder / "photos").glob("dog*")), folder / "photo.jpg")
    return folder


def make_imagenet(folder):
    """PaddleClas's layout: two cuts of each photo to train, one to evaluate. Beside it ImageNet's
    three archives; and the images to train as folders named in words, dataset/own."""
    from PIL import Image

    lists = {"train": [], "val": []}
    for number, photo in enumerate(
        sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))
    ):
        label = int(photo.stem.rpartition("_")[2])
        with Image.open(photo) as image:
            width, height = image.size
            for cut in range(2):
                name = f"train/{SYNSETS[label]}/{SYNSETS[label]}_{cut}.JPEG"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                image.crop((cut * 16, 0, width, height - cut * 16)).save(folder / name, "jpeg")
                lists["train"].append(f"{name} {label}\n")
        name = f"val/ILSVRC2012_val_{number + 1:08d}.JPEG"
        (folder / "val").mkdir(exist_ok=True)
        shutil.copy(photo, folder / name)
        lists["val"].append(f"{name} {label}\n")
    for split, lines in lists.items():
        (folder / f"{split}_list.txt").write_text("".join(lines))
    for label, synset in SYNSETS.items():
        shutil.copytree(
            folder / "train" / synset,
            folder.parent
            / "own"
            / next(ROOT.glob(f"ppcls_nextvit/export/photos/*_{label}.jpg")).stem,
        )
    make_archives(folder)


def make_archives(folder):
    """The archives of train/ (of archives) and val/ as ImageNet's are packed, and a devkit, which
    numbers the classes in its own order.
    """
    import numpy
    from scipy.io import savemat

    def pack(archive, where, *names):
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
            for name in names:
                tar.add(where / name, name)

    archives = folder.parent / "archives"
    archives.mkdir()
    for synset in SYNSETS.values():
        pack(
            archives / f"{synset}.tar",
            folder / "train" / synset,
            *os.listdir(folder / "train" / synset),
        )
    pack(folder / "ILSVRC2012_img_train.tar", archives, *os.listdir(archives))
    pack(folder / "ILSVRC2012_img_val.tar", folder / "val", *os.listdir(folder / "val"))
    data = archives / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    synsets = [*SYNSETS.values(), *(f"n1{number:07d}" for number in range(996))]
    rows = list(zip(range(1, 1001), synsets, strict=True))
    savemat(
        data / "meta.mat",
        {"synsets": numpy.array(rows, dtype=[("ILSVRC2012_ID", "u2"), ("WNID", "O")])},
    )
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n4\n")
    pack(folder / "ILSVRC2012_devkit_t12.tar.gz", archives, "ILSVRC2012_devkit_t12")
    shutil.rmtree(archives)


def make_coco(folder):
    """The nuclei as COCO 2017: its folders, its 80 categories; a nucleus is an apple."""
    from PIL import Image

    names = [
        line.split(" ", 1)[1]
        for line in (ROOT / "configs/detection/coco_labels.txt").read_text().splitlines()
    ]
    for split, ours in (("train2017", "training"), ("val2017", "validation")):
        content = json.loads((ROOT / f"dataset/nuclei/instances_{ours}.json").read_text())
        content["categories"] = [
            {"id": number, "name": name} for number, name in enumerate(names, 1)
        ]
        for annotation in content["annotations"]:
            annotation["category_id"] = names.index("apple") + 1
        (folder / split).mkdir(parents=True)
        for image in content["images"]:
            tile = Image.open(ROOT / "dataset/nuclei/images" / ours / image["file_name"])
            image["file_name"] = f"{image['id']:012d}.jpg"
            tile.convert("RGB").save(folder / split / image["file_name"])
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))


def make_ade20k(folder):
    """The nuclei as the archive ADEChallengeData2016 unpacks: JPEG, labels from 1 on."""
    from PIL import Image

    for split in ("training", "validation"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "annotations" / split).mkdir(parents=True)
        for number, path in enumerate(
            sorted((ROOT / "dataset/nuclei/images" / split).glob("*.png")), 1
        ):
            name = f"ADE_{'train' if split == 'training' else 'val'}_{number:08d}"
            Image.open(path).convert("RGB").save(folder / "images" / split / f"{name}.jpg")
            Image.open(ROOT / "dataset/nuclei/annotations" / split / path.name).point(
                lambda label: label + 1
            ).save(folder / "annotations" / split / f"{name}.png")


def weight_files(page):
    """What the blocks of `page` (its text) name of the published weights: files, and names of the
    zoo.
    """
    text = "\n".join(block.text for block in blocks(page))
    return sorted(
        {
            *re.findall(
                r"(?<![\w.-])(?:\w+_)?nextvit_\w+\.pth|(?<![\w.-])NextViT_\w+_pretrained\.pdparams",
                text,
            ),
            *re.findall(r"(?<![\w./-])nextvit_\w+\.\w+\.(?:official|paddleclas)", text),
        }
    )


def make_weights(folder, names):
    """Random weights of the zoo's records whose names or files `names` are, in `folder`: .pth in
    torch's format, .pdparams in Paddle's.

    Runs in a process of its own, in the sandbox, whose networks are small.
    """
    import paddle
    from torch_writer import tensors, write_zip

    from ppcls_nextvit import create_model, zoo
    from ppcls_nextvit.reproduce import PUBLISHED_DATASETS, default_dataset
    from ppcls_nextvit.reproduce.dense import architecture
    from ppcls_nextvit.weights.rules import to_torch

    for record in zoo.WEIGHTS.values():
        if not {record.name, record.file} & set(names) or Path(folder, record.file).exists():
            continue
        paddle.seed(0)
        if record.task == "classification":
            model = create_model(record.variant)
        else:
            classes = {"detection": 80, "segmentation": 150}[record.task]
            arch = architecture(record, PUBLISHED_DATASETS[default_dataset(record.name)], classes)
            model = create_model(arch.name, num_classes=arch.class_num, **arch.arguments)
        if record.file.endswith(".pdparams"):
            paddle.save(model.state_dict(), f"{folder}/{record.file}")
        else:
            state = to_torch(
                {key: value.numpy() for key, value in model.state_dict().items()}, model
            )
            write_zip(
                f"{folder}/{record.file}",
                {"model" if record.task == "classification" else "state_dict": tensors(state)},
            )


def make_sandbox(folder, template, page):
    """`template` for one page (its text) in `folder`, with links to the weights that it names (made
    once), there and in weights/.
    """
    shutil.copytree(template, folder)
    wanted, made = weight_files(page), template.parent / "weights"
    if not all((made / name).exists() for name in wanted):
        made.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, __file__, "weights", str(made), *wanted],
            cwd=template,
            check=True,
            env={**os.environ, "PYTHONPATH": str(template)},
        )
    if wanted:
        (folder / "weights").mkdir()
        for file in made.iterdir():
            (folder / file.name).symlink_to(file)
            (folder / "weights" / file.name).symlink_to(file)
    return folder


# The session of a page.


class Session:
    """bash -e and a Python interpreter in `sandbox`; what they print goes to `sandbox`.log. close()
    ends all that they started.
    """

    def __init__(self, sandbox):
        self.sandbox, self.end = sandbox, time.monotonic() + LIMIT_S
        self.log = open(f"{sandbox}.log", "w+", encoding="utf-8")
        programs = Path(f"{sandbox}.bin")
        programs.mkdir()
        for name in ("python", "python3", "nextvit", "pip", "pip3", "git", *NOT_EXECUTED):
            (programs / name).write_text(
                f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} "
                f'"$@"\n'
            )
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(sandbox),
        }
        self.processes = {}

    def run(self, block, name):
        """Run one block; AssertionError with the last lines that were printed if it fails."""
        path = Path(f"{self.sandbox}.bin") / f"{name}.{block.language}"
        path.write_text(block.text, encoding="utf-8")
        if block.language not in self.processes:
            self.processes[block.language] = self._start(block.language)
        process, answers = self.processes[block.language]
        at = self.log.seek(0, os.SEEK_END)
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        if not select.select([answers], [], [], max(self.end - time.monotonic(), 0))[0]:
            self._fail(name, at, f"did not end within the page's {LIMIT_S} s")
        if not os.read(answers, 1):
            self._fail(name, at, "failed")

    def _start(self, language):
        answers, done = os.pipe()
        command = [sys.executable, __file__, "interpreter", str(done)]
        if language == "bash":
            command = [
                "bash",
                "--norc",
                "-ec",
                f"trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR; exec 3<&0; while read -r block "
                f"<&3; do "
                f'. "$block" < /dev/null; printf . >&{done}; done',
            ]
        process = subprocess.Popen(
            command,
            cwd=self.sandbox,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            text=True,
            pass_fds=[done],
            start_new_session=True,
        )
        os.close(done)
        return process, answers

    def _fail(self, name, at, what):
        self.log.seek(at)
        raise AssertionError(f"{name} {what}; its last words:\n{self.log.read()[-3000:]}")

    def close(self):
        for process, answers in self.processes.values():
            process.stdin.close()
            os.close(answers)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self.log.close()


def run_page(page, template, folder):
    """Run the page's blocks in order in a new sandbox in `folder`; check those that are not run.
    Prints what was done, and its seconds.
    """
    text = page.read_text(encoding="utf-8")
    sandbox = make_sandbox(folder / "repository", template, text)
    session = Session(sandbox)
    try:
        for block in blocks(text):
            name, start = f"{page.name}:{block.line}", time.monotonic()
            if block.note[0] == "file":
                (sandbox / block.note[1]).parent.mkdir(parents=True, exist_ok=True)
                (sandbox / block.note[1]).write_text(block.text, encoding="utf-8")
            elif block.runs:
                session.run(block, name)
                print(f"{name} {time.monotonic() - start:.1f} s")
            elif block.language == "bash":
                print(f"{name} checked, {': '.join(block.note)}")
                check_commands(block.text, sandbox, page, name)
    finally:
        session.close()
        shutil.rmtree(sandbox)  # gigabytes of checkpoints


# Programs that stand in for others: what `python`, `pip`, ... are in the sandbox.


def stand_in(name, arguments):
    """Run `name` as the sandbox does. Returns the exit status."""
    if name in ("python", "python3"):
        return python(arguments)
    if name == "nextvit":
        return python(["-m", "ppcls_nextvit", *arguments])
    if name in ("pip", "pip3"):
        return check_pip(arguments)
    if name == "git" and arguments[:1] != ["clone"]:
        os.execv(
            shutil.which("git", path=os.environ["PATH"].partition(":")[2]), ["git", *arguments]
        )
    print("(not executed here)", name, *arguments)
    return 0


def python(arguments):
    if arguments[:2] == ["-m", "pip"]:
        return check_pip(arguments[2:])
    if arguments[:2] == ["-m", "venv"]:
        (Path(arguments[2]) / "bin").mkdir(parents=True, exist_ok=True)
        (Path(arguments[2]) / "bin" / "activate").write_text("deactivate() { :; }\n")
        return 0
    if arguments[:2] == ["-m", "pytest"] and not any("test_" in argument for argument in arguments):
        arguments = [*arguments, "tests/test_schedule.py"]  # for the whole suite
    if arguments[:2] == ["-m", "paddle.distributed.launch"]:
        options, program = split_launch(arguments[2:])
        arguments = [
            *arguments[:2],
            "--nproc_per_node=2",
            "--log_dir=output/launch",
            *options,
            *program,
        ]
    asked = ASKED_FOR_STATUS.get(arguments[0] if arguments else "")
    if asked is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    status = subprocess.run([sys.executable, *arguments]).returncode
    return 0 if status == asked else status


GPUS = ("--gpus", "--devices", "--nproc_per_node")


def split_launch(arguments):
    """(options of paddle.distributed.launch but for the GPUs, which are two CPU processes here; the
    program and its arguments).
    """
    at = next(i for i, argument in enumerate(arguments) if argument.endswith(".py"))
    options, kept = arguments[:at], []
    while options:
        option = options.pop(0)
        if option in GPUS:
            options.pop(0)
        elif not option.startswith(tuple(f"{name}=" for name in GPUS)):
            kept.append(option)
    return kept, arguments[at:]


def requirements():
    """({package: specifiers that pyproject.toml and CI install}, names of the extras)."""
    from packaging.requirements import Requirement

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pytest brings it there
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    texts = [
        *project["dependencies"],
        *(text for extra in extras.values() for text in extra if "ppcls_nextvit" not in text),
        *re.findall(r"(?<= )[\w-]+==[\d.]+", ci),
    ]
    known = {}
    for requirement in map(Requirement, texts):
        known.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    return known, set(extras)


def check_pip(arguments, folder=""):
    """pip's exit status, 1 for an extra or a version that pyproject.toml has not. folder: where the
    files of -r are.
    """
    from packaging.requirements import Requirement

    parser = argparse.ArgumentParser(prog="pip")
    parser.add_argument(
        "command", choices=("install", "download", "wheel", "uninstall", "list", "freeze", "show")
    )
    parser.add_argument("-r", "--requirement", action="append", default=[])
    parser.add_argument("-e", "--editable", action="append", default=[])
    parser.add_argument("-i", "--index-url")
    for flag in ("-U", "--upgrade", "--no-deps", "-q", "--no-build-isolation"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("packages", nargs="*")
    args = parser.parse_intermixed_args(arguments)
    known, extras = requirements()
    for file in args.requirement:
        lines = (
            line.partition("#")[0].strip()
            for line in Path(folder, file).read_text(encoding="utf-8").splitlines()
        )
        args.packages += [line for line in lines if line]
    for text in [*args.editable, *args.packages]:
        local = re.fullmatch(r"\.(?:\[([\w,]+)\])?", text)
        requirement = None if local else Requirement(text)
        wanted = (
            (local[1] or "").split(",")
            if local
            else requirement.extras
            if requirement.name == "ppcls_nextvit"
            else ()
        )
        unknown = {extra for extra in wanted if extra} - extras
        if unknown:
            print(f"pip: pyproject.toml has no extra {', '.join(unknown)}", file=sys.stderr)
            return 1
        ours = known.get(requirement.name.lower().removesuffix("-gpu")) if requirement else None
        if ours and not agree(requirement.specifier, ours):
            print(
                f"pip: {text}, but pyproject.toml or .ci/run have {' '.join(sorted(ours))}",
                file=sys.stderr,
            )
            return 1
    print("(not executed here) pip", *arguments)
    return 0


def agree(specifier, ours):
    """Whether the versions that a page names are ours: an exact one allowed by ours, or the same
    bounds.
    """
    from packaging.specifiers import SpecifierSet

    exact = [one.version for one in specifier if one.operator == "=="]
    return (
        not specifier
        or str(specifier) in ours
        or any(version in SpecifierSet(text) for version in exact for text in ours)
    )


# What is not run is checked.


class _Parsed(Exception):
    """Raised by a program's parser in place of what the program would do."""


def commands(text):
    """[words of each simple command] of a piece of bash."""
    lexer = shlex.shlex(
        text.replace("\\\n", " ").replace("\n", " ;\n"), posix=True, punctuation_chars=";&|"
    )
    lexer.whitespace_split, lexer.commenters = True, "#"
    found = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def check_commands(text, sandbox, page, name):
    """Programs of the repository take the options, configurations have the keys, and paths exist.
    AssertionError names the command.
    """
    for words in commands(text):
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        for path in re.findall(
            r"(?<![\w./])(?:configs|tools|deploy|docs|weight_conversion|tests|test_tipc)/[\w./-]*\w",
            " ".join(words),
        ):
            assert (sandbox / path).exists(), f"{name}: no {path}"
        if words[:1] in (["pip"], ["pip3"]) or words[1:3] == ["-m", "pip"]:
            arguments = words[1:] if words[0].startswith("pip") else words[3:]
            assert check_pip(arguments, page.parent) == 0, f"{name}: {' '.join(words)}"
        elif words and re.fullmatch(r"(.*/)?python(3[\d.]*)?", words[0]):
            check_python(words[1:], sandbox, page, name)
        elif words[:1] == ["nextvit"]:
            check_python(["-m", "ppcls_nextvit", *words[1:]], sandbox, page, name)


def check_python(words, sandbox, page, name):
    if words[:2] == ["-m", "paddle.distributed.launch"]:
        from paddle.distributed.launch.context.args_envs import parse_args

        stop_at_parser(lambda: parse_args(), words[2:], name)
        words = split_launch(words[2:])[1]
    if not words or words[0] == "-c" or words[:2] in (["-m", "venv"], ["-m", "pytest"]):
        return
    if words[0] == "-m":
        if words[1].partition(".")[0] in ("weight_conversion", "ppcls_nextvit"):
            run = partial(runpy.run_module, words[1], run_name="__main__")
            check_config(stop_at_parser(run, words[2:], name), sandbox)
        return
    program = next(
        (folder / words[0] for folder in (sandbox, page.parent) if (folder / words[0]).is_file()),
        None,
    )
    assert program, f"{name}: no program {words[0]}"
    sys.path.insert(0, str(program.parent))
    try:
        run = partial(runpy.run_path, str(program), run_name="__main__")
        check_config(stop_at_parser(run, words[1:], name), sandbox)
    finally:
        sys.path.remove(str(program.parent))


def check_config(args, sandbox):
    """ConfigError for a wrong key in what a program was given with -c and -o."""
    if not getattr(args, "config", None) or not hasattr(args, "override"):
        return
    from ppcls_nextvit.config import dialect_of
    from ppcls_nextvit.config.recipes import find
    from ppcls_nextvit.tasks import load_config

    config = sandbox / args.config
    if not config.exists():
        config = find(args.config)
    if dialect_of(config) == "PaddleClas":
        load_config(config, args.override)


def stop_at_parser(run, arguments, name):
    """What the program's own parser makes of `arguments`; the program does nothing else."""
    original, argv = argparse.ArgumentParser.parse_known_args, sys.argv

    def parse(self, *positional, **keywords):
        args, rest = original(self, *positional, **keywords)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise _Parsed(args)

    argparse.ArgumentParser.parse_known_args, sys.argv = parse, [name, *arguments]
    try:
        run()
    except _Parsed as parsed:
        return parsed.args[0]
    except SystemExit:
        raise AssertionError(f"{name}: its parser refuses {' '.join(arguments)}") from None
    finally:
        argparse.ArgumentParser.parse_known_args, sys.argv = original, argv
    raise AssertionError(f"{name}: {' '.join(arguments)} was not parsed")


class Interpreter(code.InteractiveInterpreter):
    """Runs the files whose paths it reads, in one namespace, and answers each; a traceback ends
    it.
    """

    def showtraceback(self):
        super().showtraceback()
        raise SystemExit(1)

    def serve(self, done):
        for line in sys.stdin:
            path = line.strip()
            self.runcode(compile(Path(path).read_text(encoding="utf-8"), path, "exec"))
            sys.stdout.flush()
            os.write(done, b".")


if __name__ == "__main__":
    if sys.argv[1] == "interpreter":
        Interpreter({"__name__": "__main__"}).serve(int(sys.argv[2]))
    elif sys.argv[1] == "weights":
        make_weights(sys.argv[2], sys.argv[3:])
    else:
        raise SystemExit(stand_in(sys.argv[1], sys.argv[2:]))
