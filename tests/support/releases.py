"""Releases of libraries that some tests need; the lowest that are taken run the others (.ci/lowest)."""

import pytest

from onnx_lapq.common.versions import library_version

__all__ = ["before", "needs"]


def before(library: str, release: str) -> bool:
    """Whether a library is older than a release such as ``1.24``."""
    found, asked = (
        tuple(map(int, version.split(".")[:2])) for version in (library_version(library), release)
    )
    return found < asked


def needs(library: str, release: str, reason: str) -> pytest.MarkDecorator:
    """Skip a test where a library is older."""
    return pytest.mark.skipif(before(library, release), reason=f"{reason} came with {library} {release}")
