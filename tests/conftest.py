"""Here so that every test finds the modules beside this file, such as `talk`."""

from __future__ import annotations

import pytest

from duologue.models import Store, WeightsError


@pytest.fixture(scope="session")
def weights() -> Store:
    """A store that has the weights of the profile tiny."""
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    from duologue.providers.local import engine

    store = Store()
    try:
        for name in engine.weights_of("tiny"):
            store.ensure(name, progress=False)
    except WeightsError as error:
        pytest.skip(f"the weights can't be had here: {error}")
    return store
