"""Opens dataset folders of any format and layout as one SliceDataset."""

from covid_jax.data.dataset import Slice as Slice
from covid_jax.data.dataset import SliceDataset as SliceDataset
from covid_jax.data.open_dataset import open_dataset as open_dataset
