"""Paddle Lite: the conversion, and deploy/lite's program, here with the x86 library of Paddle
Lite's wheel, or on a phone.

A phone needs adb and, in the environment, NDK, LITE and DEPS, as deploy/lite/Makefile says. The
converter is the one that PADDLE_LITE_OPT names, else it is installed for Python 3.7 in
test_tipc/models/paddlelite.
"""

import itertools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from . import stored
from .params import NO_SECTION, command_options
from .prepare import data_options
from .run import MODELS, ROOT, Chain, chain_program, prepared

LOGS = "lite_infer_"
PRECISIONS = {"FP32": "fp32", "INT8": "int8"}
TARGETS = {"x86": "lite-x86", "arm_cpu": "lite"}  # of tools/export_model.py
PHONE = ("NDK", "LITE", "DEPS")


def python37():
    """The path of a Python 3.7, for which Paddle Lite 2.12 has its wheel; None if there is none."""
    for path in (
        shutil.which("python3.7"),
        *sorted(Path.home().glob(".pyenv/versions/3.7.*/bin/python")),
    ):
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def converter(chain):
    """The path of paddle_lite_opt, installed if need be; None if that is impossible or failed.
    FileNotFoundError for a wrong one.
    """
    given = os.environ.get("PADDLE_LITE_OPT")
    if given:
        found = shutil.which(given)
        if not found:
            raise FileNotFoundError(
                f"PADDLE_LITE_OPT is {given}: no such program; give the path of paddle_lite_opt"
            )
        return Path(found)
    folder = MODELS / "paddlelite"
    opt = folder / "bin" / "paddle_lite_opt"
    if opt.exists():
        return opt
    python = python37()
    if not python:
        chain.skip(
            "the conversion for Paddle Lite", "its wheel needs Python 3.7, and there is none"
        )
        return None
    installed = chain.run(
        [python, "-m", "venv", "--clear", folder], "lite_environment"
    ) and chain.run(
        [folder / "bin" / "pip", "install", "paddlelite==2.12", "numpy"], "lite_install"
    )
    return opt if installed else None


def build_for_x86(chain, opt, folder):
    """Build deploy/lite in `folder`, linked with the library of the wheel that `opt` is of; True if
    that succeeded.
    """
    query = (
        "import os, paddlelite, sysconfig as s; print(os.path.dirname(paddlelite.__file__), "
        "s.get_config_var('LIBDIR'), sep='\\n')"
    )
    done = subprocess.run([opt.with_name("python"), "-c", query], capture_output=True, text=True)
    if done.returncode:
        raise FileNotFoundError(
            f"{opt}: the Python beside it has no paddlelite; give PADDLE_LITE_OPT of an "
            f"environment with its wheel"
        )
    package, libraries = done.stdout.splitlines()
    wheel = folder / "wheel"
    wheel.mkdir(parents=True, exist_ok=True)
    # as a linker names it; libs/ is where it looks
    for name, target in (("liblite_pybind.so", "lite.so"), ("libs", "libs")):
        (wheel / name).unlink(missing_ok=True)
        (wheel / name).symlink_to(Path(package) / target)
    link = (
        f"-L{libraries} -lpython3.7m "
        f"-Wl,--disable-new-dtags,-rpath,{libraries}:{wheel},-rpath-link,{wheel}/libs"
    )
    return chain.run(
        [
            "make",
            "-C",
            "deploy/lite",
            "CXX=c++",
            f"BUILD={folder}",
            f"LITE_INCLUDE={ROOT / 'deploy' / 'lite' / 'compat'}",
            f"LITE_LIBRARY={wheel / 'liblite_pybind.so'}",
            "DEPS=/usr",
            f"LDFLAGS={link}",
        ],
        "lite_build_x86",
    )


def build_for_a_phone(chain, folder):
    """Build deploy/lite in `folder` with what the environment gives the Makefile; True if that
    succeeded.
    """
    return chain.run(["make", "-C", "deploy/lite", f"BUILD={folder}"], "lite_build_arm_cpu")


def missing_for_a_phone():
    """What is not here, of what a phone needs; '' if all is there."""
    adb = shlex.split(os.environ.get("ADB", "adb"))[0]
    missing = [name for name in PHONE if name not in os.environ] + (
        [] if shutil.which(adb) else [adb]
    )
    return f"no {', '.join(missing)}" if missing else ""


@chain_program(("lite_infer",))
def main(params, mode) -> int:
    section = params[NO_SECTION]
    weights = "-o Global.pretrained_model"
    images = prepared(section.text("image_dir"), params, mode)
    program, *arguments = shlex.split(section.text("inference_cmd"))
    build = ROOT / Path(program).parent
    devices = section.list("runtime_device", of=tuple(TARGETS))
    precisions = [
        PRECISIONS[name] for name in section.list("--precision_list", of=tuple(PRECISIONS))
    ]
    options = section.numbers("--num_threads_list"), section.numbers("--batch_size_list")
    data = [
        *data_options(params, mode),
        *command_options(weights, prepared(section.text(weights), params, mode)),
    ]
    chain = Chain("lite", section.text("clas_model_file"), mode)
    stored.remove_logs(chain, LOGS)
    opt = converter(chain)
    for device in devices if opt else ():
        models = {}
        for precision in precisions:
            folder = f"./test_tipc/models/{chain.model}_{TARGETS[device]}_{precision}"
            command = chain.program(
                section.text("2lite"),
                *data,
                "--to",
                TARGETS[device],
                "--precision",
                precision,
                *command_options("-o Global.save_inference_dir", folder),
            )
            if chain.run(
                command, f"lite_convert_{device}_{precision}", {"PADDLE_LITE_OPT": str(opt)}
            ):
                models[precision] = folder
        if device == "arm_cpu" and missing_for_a_phone():
            chain.skip("deploy/lite/run_adb.sh", missing_for_a_phone())
            continue
        if not (
            build_for_x86(chain, opt, build)
            if device == "x86"
            else build_for_a_phone(chain, build / "arm")
        ):
            continue
        for (precision, model), threads, batch in itertools.product(models.items(), *options):
            log = f"{LOGS}{device}_threads_{threads}_precision_{precision}_batchsize_{batch}"
            given = [*arguments, f"--threads={threads}", f"--batch-size={batch}"]
            if device == "x86":
                chain.predict([program, f"--model={model}", f"--images={images}", *given], log)
            else:
                chain.run(
                    ["deploy/lite/run_adb.sh", model, images, *given],
                    log,
                    {"BUILD": str(build / "arm")},
                )
    for precision in precisions:
        stored.compare(
            chain, f"{LOGS}x86_", precision, {"fp32": "python", "int8": "lite"}[precision]
        )
    return chain.status()


if __name__ == "__main__":
    raise SystemExit(main())
