"""Pictures that more than one room of the augmentation is tested on."""

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def images():
    """Four smooth pictures float32 [4, 20, 30, 3]."""
    noise = np.random.default_rng(0).uniform(0, 255, (4, 20, 30, 3))
    return ndimage.gaussian_filter(noise, (0, 2, 2, 0)).astype(np.float32)
