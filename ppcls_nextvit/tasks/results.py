"""What a prediction is, whatever the task: results with their images, as JSON, tables and pictures.

Each task has its own kind of Result beside its pictures.
"""

import io
import itertools
import os
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Protocol, Sequence, Union

from PIL import Image

from ..data.images import ImageError
from ..engine.logger import logger
from ..schema import shown_text
from .common import json_text, write_json
from .inputs import InputImage

__all__ = [
    "Failed",
    "Predictor",
    "Result",
    "Results",
    "output_stems",
    "predictions",
    "save_results",
]

LONGEST_NAME = 200  # bytes, of the 255 that systems allow
JSON_NAME = "predictions.json"


class Result:
    """What is known of one image. image: the InputImage; names: of the classes, in order.

    error: why there is nothing known, else None. Shown as a picture in a notebook.
    """

    error: Optional[str] = None

    def __init__(self, image: InputImage, names: Sequence[str]) -> None:
        self.image = image
        self.names = names

    @property
    def file_name(self) -> str:
        """The path of the image, or the name of one in memory."""
        return self.image.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file_name}: {self.line()})"

    def line(self) -> str:
        """What a terminal says of the image, in a line."""
        return self.error or f"{len(self.rows())} found"

    def to_dict(self) -> Dict[str, Any]:
        """What JSON says of the image."""
        raise NotImplementedError

    def rows(self) -> List[Dict[str, Any]]:
        """What a table says of the image: a row for each class, object or area."""
        raise NotImplementedError

    def pictures(self) -> Mapping[str, Image.Image]:
        """The pictures that `save` writes, by the ends of their names."""
        raise NotImplementedError

    def draw(self) -> Image.Image:
        """The picture with what was found."""
        return next(iter(self.pictures().values()))

    def show(self) -> None:
        """Show the picture: below the cell of a notebook, else in a window."""
        if "IPython" in sys.modules:
            from IPython import get_ipython
            from IPython.display import display

            if get_ipython() is not None:
                display(self.draw())
                return
        self.draw().show(shown_text(self.file_name, 80))

    def save(self, path: Union[str, "os.PathLike[str]"]) -> List[Path]:
        """Write the picture as the image file `path`, or, if that is a folder or has no ending, all
        `pictures` into the folder. Returns what was written.
        """
        target = Path(path)
        if target.suffix and not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.draw().save(target)
            return [target]
        return _save(self.pictures(), target / _stems([self.image])[0])

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.draw().save(buffer, "png")
        return buffer.getvalue()


class Failed(Result):
    """An image that could not be read, or that the model cannot take: `error` says why."""

    def __init__(self, image: InputImage, names: Sequence[str], error: object) -> None:
        super().__init__(image, names)
        self.error = shown_text(error)

    def __repr__(self) -> str:
        return f"Failed({self.error})"

    def to_dict(self) -> Dict[str, Any]:
        """{file_name, error}."""
        return {"file_name": self.file_name, "error": self.error}

    def rows(self) -> List[Dict[str, Any]]:
        """One row, with the error."""
        return [self.to_dict()]

    def pictures(self) -> Mapping[str, Image.Image]:
        """None."""
        return {}

    def draw(self) -> Image.Image:
        """ImageError: there is nothing to draw."""
        raise ImageError(str(self.error))

    def _repr_png_(self) -> None:  # type: ignore[override]
        return None


class Predictor(Protocol):
    """A model with its preprocessing and its classes' names.

    batch_size: how many images it is given at a time by default.
    """

    names: Sequence[str]
    batch_size: int

    def predict(self, images: Sequence[InputImage]) -> List[Result]:
        """One Result for each image, in order; a Failed for one that gives an ImageError."""

    def write(
        self,
        images: Sequence[InputImage],
        json: Optional[str] = None,
        sheet: Optional[str] = None,
        out: Optional[str] = None,
    ) -> int:
        """Predict `images` and tell of them, as `nextvit infer` does: on the terminal and in the
        files of PredictOutputs. Returns the exit status: 1 if an image could not be read.
        """


def predictions(
    predictor: Predictor, images: Iterable[InputImage], batch_size: Optional[int] = None
) -> Iterator[Result]:
    """One Result for each of `images`, in order. A generator: it asks for the next batch when all
    of the last were taken, and then forgets the pixels of files.
    """
    waiting, size = iter(images), batch_size or predictor.batch_size
    while batch := list(itertools.islice(waiting, size)):
        yield from predictor.predict(batch)
        for image in batch:
            image.release()


class Results(Sequence[Result]):
    """Results of several images, in their order."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = list(results)

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, index: Any) -> Any:
        found = self._results[index]
        return Results(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        shown = [repr(result) for result in self._results[:5]]
        more = ["..."] if len(self) > len(shown) else []
        return "\n".join([f"{len(self)} results", *shown, *more])

    @property
    def errors(self) -> List[str]:
        """Why images have no result, of those that have none."""
        return [result.error for result in self._results if result.error is not None]

    def to_json(self, path: Union[str, "os.PathLike[str]", None] = None) -> str:
        """The results as a JSON list, as `nextvit infer --json` writes them; into the file `path`,
        too, if it is given.
        """
        told = [result.to_dict() for result in self._results]
        if path is not None:
            write_json(os.fspath(path), told)
        return json_text(told)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with the `rows` of all images. ImportError without pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame([row for result in self._results for row in result.rows()])

    def save(self, directory: Union[str, "os.PathLike[str]"]) -> Path:
        """Write all pictures, and predictions.json, into the folder `directory`, which is made if
        need be. Returns the folder. OSError if something cannot be written.
        """
        folder = Path(directory)
        images = [result.image for result in self._results]
        told = save_results(self._results, images, folder)
        write_json(folder / JSON_NAME, told)
        unwritten = [
            entry["error"]
            for entry, result in zip(told, self._results)
            if "error" in entry and result.error is None
        ]
        if unwritten:
            raise OSError(unwritten[0])
        return folder


def save_results(
    results: Iterable[Result], images: Sequence[InputImage], directory: Union[str, Path]
) -> List[Dict[str, Any]]:
    """Write the pictures of each of `results`, which are of `images`, into the folder `directory`,
    made if need be; images of several folders go into folders of the same names. Returns what JSON
    says of each; an error beside it tells which picture could not be written. Errors are logged.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    told: List[Dict[str, Any]] = []
    for result, stem in zip(results, _stems(images)):
        entry = result.to_dict()
        try:
            _save(result.pictures(), Path(directory) / stem)
        except (ImageError, OSError) as error:
            entry["error"] = shown_text(error)
        if "error" in entry:
            logger.error("%s", entry["error"])
        told.append(entry)
    return told


def _save(pictures: Mapping[str, Image.Image], stem: Path) -> List[Path]:
    written = []
    for ending, picture in pictures.items():
        stem.parent.mkdir(parents=True, exist_ok=True)
        path = stem.with_name(f"{stem.name}{ending}")
        picture.save(path, "png")
        written.append(path)
    return written


def _stems(images: Sequence[InputImage]) -> List[str]:
    """`output_stems` of the images that are files; those in memory have names."""
    of_files = iter(output_stems([image.path for image in images if image.path is not None]))
    return [image.name if image.path is None else next(of_files) for image in images]


def output_stems(paths: Sequence[Path]) -> List[str]:
    """For each path the beginning of the names of what is written of it: its folders below the one
    that holds them all, and its name, with the ending only where another differs by nothing else.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    if not whole:
        return []
    root = os.path.commonpath([path.parent for path in whole])
    below = [path.relative_to(root) for path in whole]
    times = Counter(path.with_suffix("") for path in dict.fromkeys(below))
    names = [path if times[path.with_suffix("")] > 1 else path.with_suffix("") for path in below]
    return [str(path.with_name(_bounded(path.name))) for path in names]


def _bounded(name: str) -> str:
    """`name`, or of a long one its beginning and a digest: endings are yet to come."""
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    kept = data[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{kept}-{zlib.crc32(data):08x}"
