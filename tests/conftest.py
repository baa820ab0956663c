"""What all tests share: a cache of their own, one thread, no time limits, a reason beside each GPU test skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("seqtext", deadline=None)
settings.load_profile("seqtext")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the cache of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQTEXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models here are so small that threads only wait for each other; and sums come in one order."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Workers take whole files in this order: the longest is not to be the last, while the others have nothing to do.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name != "test_readme.py", item.path not in slow))
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        skip = pytest.mark.skip(reason=f"needs a CUDA device: none here (torch {torch.__version__}, built for {built})")
        for item in wanting:
            item.add_marker(skip)
