"""Packages that come with an extra, and what is said where a package is absent.

In: the name of a package, or work that may need one. Out: the `missing-package` error that names the extra.
The light installation tags with the box; `EXTRAS` has every package that other work needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from beatline.core.errors import UserError

EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "matplotlib": "train",
    "av": "media",
    "pyarrow": "data",
    "h5py": "data",
    "pandas": "data",
    "yt_dlp": "download",
    "ray": "bulk",
    "fsspec": "bulk",
    "sounddevice": "listen",
    "onnx": "export",
    "onnxscript": "export",
    "openvino": "export",
    "transformers": "transformers",
    "fastapi": "serve",
    "starlette": "serve",
    "pydantic": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
}
"""The extra that brings a package, by the name that is imported."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def missing(what: str, *packages: str) -> UserError:
    """The error for work that missing packages stop.

    Its remedy works from a clone too: pip takes the extras of the beatline that is installed.

    Args:
        what: The work, as the user named it.
        packages: As they are imported.
    """
    extras = list(dict.fromkeys(EXTRAS[package] for package in packages if package in EXTRAS))
    wanted = f"'beatline[{','.join(extras)}]'" if extras else "beatline"
    cause = f"{' and '.join(packages)} {'is' if len(packages) == 1 else 'are'} not installed"
    return UserError("missing-package", what, cause, f"pip install {wanted}")


def need(what: str, *packages: str) -> None:
    """Does nothing where every package is installed; to be asked before work that takes long.

    Raises:
        UserError: `missing-package`.
    """
    absent = [package for package in packages if not is_installed(package)]
    if absent:
        raise missing(what, *absent)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Names the extra of a package that the block lacks; a missing module of beatline is a bug and stays so.

    Raises:
        UserError: `missing-package`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "beatline").partition(".")[0]
        if package == "beatline":
            raise
        raise missing(what, package) from error
