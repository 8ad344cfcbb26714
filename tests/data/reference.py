"""A table of parameters applied with torchvision's functional transforms on float tensors: slow, obvious, the oracle."""

import math

import torch
from torchvision.transforms.v2 import functional as F

from benchmark.data import views as column


def by_torchvision(pixels, row, taps, out_size):
    """pixels u1 (side, side, 3), one row of the table -> f4 (3, O, O) in [0, 1], before normalization."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    top, left, height, width = (int(row[column.TOP + i]) for i in range(4))
    image = F.resized_crop(image, top, left, height, width, [out_size, out_size], antialias=True)
    if row[column.FLIP]:
        image = F.horizontal_flip(image)
    for operation in row[column.ORDER : column.ORDER + 4].astype(int):
        if operation == 0:
            image = F.adjust_brightness(image, float(row[column.BRIGHTNESS]))
        elif operation == 1:
            image = F.adjust_contrast(image, float(row[column.CONTRAST]))
        elif operation == 2:
            image = F.adjust_saturation(image, float(row[column.SATURATION]))
        elif operation == 3:
            image = F.adjust_hue(image, float(row[column.HUE]))
    if row[column.GRAY]:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if row[column.SIGMA] > 0:
        image = F.gaussian_blur(image, [taps, taps], [float(row[column.SIGMA])] * 2)
    if not math.isinf(row[column.SOLARIZE]):
        image = F.solarize(image, float(row[column.SOLARIZE]))
    return image
