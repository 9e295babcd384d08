"""The network and its blocks, as Flax modules."""

from covid_jax.models.blocks import ConvBlock as ConvBlock
from covid_jax.models.blocks import ResDil as ResDil
from covid_jax.models.scse import SCSE as SCSE
from covid_jax.models.scse import channel_se as channel_se
from covid_jax.models.scse import spatial_se as spatial_se
from covid_jax.models.unet import SCSEUNet as SCSEUNet
