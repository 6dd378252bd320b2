"""Running the commands of a chain: each with a log of its own, its outcome in the Paddle suites'
words.
"""

import difflib
import functools
import inspect
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .params import ParamsError, read_params

__all__ = [
    "DATA",
    "MODELS",
    "OUTPUT",
    "ROOT",
    "Chain",
    "chain_program",
    "checkout_environment",
    "gpus",
    "interpreter",
    "prepared",
    "use_gpu",
]

ROOT = Path(__file__).resolve().parents[2]
DATA, MODELS, OUTPUT = (ROOT / "test_tipc" / name for name in ("data", "models", "output"))
# of a program's --json
PREDICTED = ("class_ids", "scores", "objects", "classes")
LAST_LINES = 20  # of a failed command's log, shown


def interpreter(params_value):
    """The Python that runs the commands: TIPC_PYTHON, else the txt file's. ParamsError if there is
    none of that name.
    """
    python = os.environ.get("TIPC_PYTHON") or params_value
    if shutil.which(python) is None:
        raise ParamsError(
            f"no interpreter {python}; set TIPC_PYTHON to the Python of your environment"
        )
    return python


def checkout_environment(*folders):
    """The environment with `folders` first on PYTHONPATH, so that this checkout's package comes
    before an installed one.
    """
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")])
        ),
    }


@functools.cache
def gpus():
    """How many GPUs Paddle can use here."""
    import paddle

    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def use_gpu(gpu_id):
    """Let the commands see GPU `gpu_id` alone, as the scripts' third argument says; None: all.
    ValueError for what is no number.
    """
    if gpu_id is not None:
        if not gpu_id.isdecimal():
            raise ValueError(f"after MODE: {gpu_id!r}, expected the number of a GPU")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_id


def prepared(path, params, mode):
    """`path`, relative to the root. FileNotFoundError, which says to run prepare.sh, if nothing is
    there.
    """
    if not (ROOT / path).exists():
        raise FileNotFoundError(
            f"{path}: not there; first run: bash test_tipc/prepare.sh {params.path} {mode}"
        )
    return path


class Chain:
    """One run of the chain `name` (its results are in results_`name`.log) for a model in a mode.

    The results log and each command's log are in test_tipc/output/MODEL/MODE/; the results of an
    earlier run are removed.
    """

    def __init__(self, name, model, mode, python="python"):
        self.model, self.python = model, interpreter(python)
        self.folder = OUTPUT / model / mode
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = self.folder / f"results_{name}.log"
        self.results.write_text("")
        self.succeeded = self.failed = self.skipped = 0

    def log(self, name):
        """The path of the log `name`, without suffix, relative to the root."""
        return (self.folder / f"{name}.log").relative_to(ROOT)

    def program(self, text, *options):
        """The command of a program in Python that a txt file names with its arguments; options:
        further arguments.
        """
        return [self.python, *shlex.split(text), *options]

    def run(self, command, log, env=None):
        """Run `command`, a list of arguments, without a shell, from the root; True if it succeeded.
        log: name of its log, without suffix.

        env: further environment variables.
        """
        command, path = [str(part) for part in command], self.log(log)
        environment = {**checkout_environment(ROOT), **(env or {})}
        with open(ROOT / path, "wb") as stream:
            try:
                with subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                ) as process:
                    try:
                        status = process.wait()
                    except BaseException:
                        # a signal to the chain ends its command, too
                        process.terminate()
                        raise
            except OSError as error:  # no such program, or not executable
                stream.write(f"{error}\n".encode())
                status = 127
        return self._outcome(status == 0, shlex.join(command), path)

    def predict(self, command, log, env=None):
        """`run` a program that has the option --json; its predictions follow in the log, a line
        `image<TAB>{class_ids, scores}` each; of a detector {objects}, of a segmentor {classes}.
        """
        with tempfile.TemporaryDirectory() as folder:
            succeeded = self.run([*command, f"--json={folder}/predictions.json"], log, env)
            if succeeded:
                predictions = json.loads(
                    (Path(folder) / "predictions.json").read_text(encoding="utf-8")
                )
                with open(ROOT / self.log(log), "a", encoding="utf-8") as stream:
                    for found in predictions:
                        values = {key: found[key] for key in PREDICTED if key in found}
                        stream.write(f"{Path(found['file_name']).name}\t{json.dumps(values)}\n")
        return succeeded

    def check(self, what, log, passed, report):
        """Log a comparison that the chain makes itself, and its `report`, as a command is; returns
        `passed`.
        """
        (ROOT / self.log(log)).write_text(f"{report}\n", encoding="utf-8")
        return self._outcome(passed, what, self.log(log))

    def _outcome(self, succeeded, command, path):
        if succeeded:
            self.succeeded += 1
        else:
            self.failed += 1
            print(
                *(ROOT / path)
                .read_text(encoding="utf-8", errors="replace")
                .splitlines()[-LAST_LINES:],
                sep="\n",
                flush=True,
            )
        self.say(
            f"Run {'successfully' if succeeded else 'failed'} with command - {self.model} - "
            f"{command} - {path} !"
        )
        return succeeded

    def skip(self, what, why):
        """Log what this machine cannot do."""
        self.skipped += 1
        self.say(f"Skipped with command - {self.model} - {what} - {why} !")

    def say(self, outcome):
        line = f"\033[33m {outcome} \033[0m"
        print(line, flush=True)
        with open(self.results, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def status(self):
        """The exit status: 0 if something ran and nothing failed. The last line of the results says
        that the chain came to its end.
        """
        self.say(
            f"Finished - {self.model} - {self.succeeded} succeeded, {self.failed} failed, "
            f"{self.skipped} skipped !"
        )
        return int(self.failed > 0 or self.succeeded == 0)


def chain_program(modes):
    """Decorator: `run(params, mode, *options) -> exit status` becomes the command line CONFIG.txt
    MODE [OPTION...] of a chain with `modes`.

    MODE may be left out where there is one alone.
    What cannot be begun (a wrong file, mode or value, nothing prepared) or finished (a program left
    nothing to read) is one line on stderr and status 2.
    """

    def decorate(run):
        @functools.wraps(run)
        def main(argv=None):
            if argv is None:
                argv = sys.argv[1:]
                signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            try:
                # some of the suites' scripts take no MODE
                if len(argv) == len(modes) == 1:
                    argv = [*argv, *modes]
                if len(argv) < 2:
                    raise ValueError(
                        f"expected CONFIG.txt MODE, with MODE one of {', '.join(modes)}"
                    )
                path, mode, *options = argv
                if mode not in modes:
                    close = difflib.get_close_matches(mode, modes, n=1)
                    raise ValueError(
                        f"mode {mode!r}:{f' did you mean {close[0]!r}?' if close else ''} "
                        f"expected one of: {', '.join(modes)}"
                    )
                try:
                    inspect.signature(run).bind(None, mode, *options)
                except TypeError as error:
                    raise ValueError(f"after MODE: {error}: {' '.join(options)}") from None
                return run(read_params(path), mode, *options)
            except (ValueError, OSError, ImportError) as error:
                print("error:", " ".join(str(error).split()), file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                return 130

        return main

    return decorate
