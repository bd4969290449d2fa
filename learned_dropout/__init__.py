"""This repository's dropouts for any torch model: `from learned_dropout import LearnedDropout`.

Installed, this is the one name that can be imported. What it is made of are the rooms `common`, `ops`
and `dropout` of the repository, as `learned_dropout.dropout` and so on (`learned_dropout.rooms`).
"""

from learned_dropout import rooms

rooms.install()

from learned_dropout.drop_in import DropIn, guard, penalty
from learned_dropout.dropout.alpha import AlphaDropout
from learned_dropout.dropout.base import DropoutOutput, Site
from learned_dropout.dropout.channel import ChannelDropout
from learned_dropout.dropout.classic import ClassicDropout
from learned_dropout.dropout.drop_path import DropPath
from learned_dropout.dropout.feature_alpha import FeatureAlphaDropout
from learned_dropout.dropout.fourier import FourierMap
from learned_dropout.dropout.head import HeadDropout
from learned_dropout.dropout.layer_group import LayerGroupDropout
from learned_dropout.dropout.learned import LearnedDropout
from learned_dropout.dropout.multiplicative import MultiplicativeDropout
from learned_dropout.dropout.penalties import MaskPenalty
from learned_dropout.dropout.rounding import SigmoidRounding, StochasticRounding
from learned_dropout.dropout.standard import StandardDropout
from learned_dropout.dropout.token import TokenDropout

__all__ = [
    "AlphaDropout",
    "ChannelDropout",
    "ClassicDropout",
    "DropIn",
    "DropPath",
    "DropoutOutput",
    "FeatureAlphaDropout",
    "FourierMap",
    "HeadDropout",
    "LayerGroupDropout",
    "LearnedDropout",
    "MaskPenalty",
    "MultiplicativeDropout",
    "SigmoidRounding",
    "Site",
    "StandardDropout",
    "StochasticRounding",
    "TokenDropout",
    "guard",
    "penalty",
]
