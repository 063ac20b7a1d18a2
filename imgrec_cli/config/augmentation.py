"""The section `augment`: random changes of training images."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from imgrec_cli.config.values import Factors, Section, ordered


class Rotate(Section):
    """Turn by a random angle about the centre."""

    type: Literal["rotate"]
    degrees: float = Field(ge=0, le=180, description="Largest angle to either side, in degrees.")


class Shift(Section):
    """Move by a random fraction of the side, or by whole pixels."""

    type: Literal["shift"]
    height: float = Field(
        default=0.0, ge=0, le=1, description="Largest vertical move to either side, as a fraction of the height."
    )
    width: float = Field(
        default=0.0, ge=0, le=1, description="Largest horizontal move to either side, as a fraction of the width."
    )
    pixels: int = Field(
        default=0,
        ge=0,
        description="Largest move to each of the four sides in whole pixels, in place of fractions: none is blurred.",
    )


class Shear(Section):
    """Slant by a random angle."""

    type: Literal["shear"]
    degrees: float = Field(ge=0, lt=90, description="Largest shear angle to either side, in degrees.")


class Zoom(Section):
    """Scale height and width by independent random factors; above 1 shows more of the surroundings."""

    type: Literal["zoom"]
    range: Factors = Field(description="Smallest and largest factor; below 1 enlarges the picture.")


class Crop(Section):
    """Cut out a random rectangle and scale it back to the full size (Szegedy et al. 2015, section 6)."""

    type: Literal["crop"]
    area: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Strict(False),
        AfterValidator(ordered),
    ] = Field(description="Smallest and largest share of the picture's area that is kept.")
    aspect: Factors = Field(default=(0.75, 4 / 3), description="Smallest and largest width to height of the rectangle.")


class Flip(Section):
    """Mirror half of the pictures."""

    type: Literal["flip"]
    axis: Literal["horizontal", "vertical"] = Field(
        default="horizontal", description="horizontal swaps left and right, vertical swaps top and bottom."
    )


class Fill(Section):
    """What stands where a geometric step looks past the picture's edge; nearest where this is not given."""

    type: Literal["fill"]
    mode: Literal["nearest", "constant", "reflect"] = Field(description="Repeat the edge, one value, or mirror.")
    value: float = Field(default=0.0, ge=0, le=255, description="Pixel value for constant, 0 to 255.")


class Brightness(Section):
    """Multiply all pixels by a random factor."""

    type: Literal["brightness"]
    range: Factors = Field(description="Smallest and largest factor.")


class Contrast(Section):
    """Scale the distance of all pixels from the picture's mean by a random factor."""

    type: Literal["contrast"]
    range: Factors = Field(description="Smallest and largest factor.")


class ChannelShift(Section):
    """Add a random value to each channel."""

    type: Literal["channel_shift"]
    amount: float = Field(
        ge=0, le=255, description="Largest value added to or taken from a channel, on the 0 to 255 scale."
    )


class RandAugment(Section):
    """Some changes of one strength, drawn anew for every picture (Cubuk et al. 2019).

    Of the paper's operations: identity, rotate, shear and translate along both axes, which join the other geometric
    steps; autocontrast, brightness, color, contrast, posterize, solarize. Equalize and sharpness are left out.
    """

    type: Literal["randaugment"]
    operations: int = Field(default=2, ge=1, le=8, description="How many changes a picture gets.")
    magnitude: float = Field(default=9.0, ge=0, le=10, description="How strong each of them is, 0 to 10.")


class Erase(Section):
    """Cover a random rectangle with a random color (Zhong et al. 2017)."""

    type: Literal["erase"]
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that lose a rectangle.")
    area: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Strict(False),
        AfterValidator(ordered),
    ] = Field(default=(0.02, 0.33), description="Smallest and largest share of the picture's area that is covered.")
    aspect: Factors = Field(default=(0.3, 3.3), description="Smallest and largest width to height of the rectangle.")


class Mixup(Section):
    """Average a picture with another one of the batch, and their labels in the same shares (Zhang et al. 2017)."""

    type: Literal["mixup"]
    alpha: float = Field(default=0.2, ge=0.1, le=10, description="The share kept is drawn from Beta(alpha, alpha).")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that are mixed.")


class Cutmix(Section):
    """Put a rectangle of another picture of the batch in its place, and mix the labels by area (Yun et al. 2019)."""

    type: Literal["cutmix"]
    alpha: float = Field(default=1.0, ge=0.1, le=10, description="The area kept is drawn from Beta(alpha, alpha).")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that are mixed.")


Augmentation = Annotated[
    Rotate
    | Shift
    | Shear
    | Zoom
    | Crop
    | Flip
    | Fill
    | Brightness
    | Contrast
    | ChannelShift
    | RandAugment
    | Erase
    | Mixup
    | Cutmix,
    Field(discriminator="type"),
]
