"""Any kind of dropout with a rate of its own in each layer."""

from collections.abc import Callable, Sequence

from torch import nn

from common.errors import UserError
from dropout.base import Site


def by_layer(
    site: Site,
    *,
    kind: Callable[..., nn.Module],
    p: float,
    rates: Sequence[float] | None = None,
) -> nn.Module:
    """The dropout that `kind(site, p=rate)` makes: of `rates` that of its layer, of none `p`.

    ValueError where `rates` are not n_layer of them, and whatever `kind` refuses.
    """
    if rates is None:
        return kind(site, p=p)
    if not isinstance(rates, Sequence) or len(rates) != site.n_layer:
        raise UserError(
            f"rates={rates} at slot {site.slot} must be {site.n_layer}: one for each layer"
        )
    return kind(site, p=rates[site.layer])
