"""A plugin of pytest: what a forked run of a few tests can do without."""

import gc

from hypothesis import Phase, settings

# One failure is enough: none is made small. Nor is there chance in it.
settings.register_profile(
    "mutation", phases=[Phase.explicit, Phase.generate], database=None, derandomize=True
)


def pytest_configure() -> None:
    gc.freeze()  # what was there before the fork is not looked through after it
