"""Any kind of dropout with a rate of its own in each layer."""

from collections.abc import Callable, Sequence

from torch import nn

from common.errors import UserError
from dropout.base import Site


def by_layer(
    site: Site, *, kind: Callable[..., nn.Module], p: float | Sequence[float]
) -> nn.Module:
    """The dropout that `kind(site, p=rate)` makes, with the rate of its layer; one number is all's.

    ValueError where `p` is a list of other than n_layer rates, and whatever `kind` refuses.
    """
    given: object = p
    if isinstance(given, str) or not isinstance(given, Sequence):
        return kind(site, p=given)
    if len(given) != site.n_layer:
        raise UserError(
            f"p={p} at slot {site.slot} must be one rate, or {site.n_layer}: one for each layer"
        )
    return kind(site, p=given[site.layer])
