"""From pixels to what the model takes: options, presets, sizes and the conversion itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from onnx_lapq.calibration.stored import Array, InputSpec
from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.common.records import check
from onnx_lapq.errors import CalibrationError, ConfigError

__all__ = [
    "PRESETS",
    "Geometry",
    "ImageInput",
    "Preprocessing",
    "fit_to_model",
    "image_input",
    "image_size",
    "plan_geometry",
    "size_fits",
    "to_model_input",
]

_ByChannel = Annotated[
    tuple[float, ...], Meta(min_length=1, description="a tuple, each a number, of one or more")
]
_Letterbox = Annotated[
    str,
    Meta(pattern=r"^letterbox:(model|\d+(x\d+)?)$", description="letterbox:SIZE, such as letterbox:640"),
]
_LETTERBOX_OF_MODEL = "letterbox:model"
_OPEN_SIDE = 640
"""Pixels of a letterbox where the model leaves its size open, as YOLO networks are trained."""
Layout = Literal["auto", "nchw", "nhwc"]
Color = Literal["auto", "rgb", "bgr", "gray"]
_CHANNELS = (1, 3, 4)
# Integer inputs get the raw pixels; int8 cannot hold them.
_PIXEL_DTYPES = frozenset(
    {"float16", "float32", "float64", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}
)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image on its way to the model: value = (pixel * scale - mean) / std.

    Attributes:
        resize: Pixels of the shorter side, or height and width, or ``letterbox:640``. None resizes to the
            model's size, without cropping and without keeping the ratio of the sides. ``letterbox`` keeps the
            ratio, and fills what is left on both sides with a grey of 114; ``letterbox:model`` has the
            model's size, or 640 where that is open.
        crop: Height and width of the centre crop after resizing; a flag takes ``480x640``, or one number
            for a square. None crops to the model's size where ``resize`` gives the shorter side, else
            not at all.
        scale: Factor on pixels of 0 to 255.
        mean: Subtracted after scaling; one value, or one per channel. Channels are in the model's order.
        std: Divisor after that; one value, or one per channel.
        color: Order of the channels that the model takes. ``auto`` is ``rgb``, and ``gray`` for models of one
            channel; ``gray`` feeds the same grey to all channels.
        layout: Place of the channels in the model's input. ``auto`` reads it from the shape.
        input_size: Height and width of the model's input, where the model leaves them open; a flag takes
            ``480x640``, or one number for a square. What a preset resizes and crops to is fitted to it.
    """

    resize: tuple[int, int] | int | _Letterbox | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: _ByChannel = (0.0,)
    std: _ByChannel = (1.0,)
    color: Color = "auto"
    layout: Layout = "auto"
    input_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check(self)
        sizes = {"resize": self.letterbox or self.resize, "crop": self.crop, "input_size": self.input_size}
        for name, size in sizes.items():
            if isinstance(size, int | tuple) and min(size if isinstance(size, tuple) else (size,)) < 1:
                raise ConfigError(f"{name} is {size}; give pixels, 1 or more")
        if self.letterbox and self.crop:
            raise ConfigError("resize is a letterbox, which leaves nothing to crop; leave crop out")
        if self.scale == 0 or 0 in self.std:
            raise ConfigError("scale or std is 0; give another number")

    @property
    def letterbox(self) -> tuple[int, int] | None:
        """Height and width of a letterbox; None where ``resize`` asks for none."""
        if not isinstance(self.resize, str):
            return None
        if self.resize == _LETTERBOX_OF_MODEL:
            return _OPEN_SIDE, _OPEN_SIDE
        sides = [int(side) for side in self.resize.partition(":")[2].split("x")]
        return sides[0], sides[-1]


PRESETS: dict[str, Preprocessing] = {
    "imagenet": Preprocessing(256, (224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "tensorflow": Preprocessing(scale=1 / 127.5, mean=(1.0,)),
    "caffe": Preprocessing(256, (224, 224), scale=1.0, mean=(103.939, 116.779, 123.68), color="bgr"),
    "unit": Preprocessing(),
    "raw": Preprocessing(scale=1.0),
    "yolo": Preprocessing(_LETTERBOX_OF_MODEL),
}


@dataclass(frozen=True)
class ImageInput:
    """A model input that takes images.

    Attributes:
        name: The input's name.
        dtype: Element type the model takes.
        channels: 1, 3 or 4.
        height: Fixed height in pixels, or None.
        width: Fixed width in pixels, or None.
        layout: ``"nchw"``, ``"nhwc"``, or ``"nhw"`` (no channel dimension).
    """

    name: str
    dtype: np.dtype[Any]
    channels: int
    height: int | None
    width: int | None
    layout: Literal["nchw", "nhwc", "nhw"]


@dataclass(frozen=True)
class Geometry:
    """Sizes of one preprocessing for one model: ``resize`` first, then ``crop``; None: not done.

    With ``letterbox`` images keep the ratio of their sides, and grey fills what is left.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    letterbox: bool = False


def image_input(spec: InputSpec, preprocessing: Preprocessing) -> ImageInput | None:
    """Read size, layout and channels from the shape of an input.

    1, 3 or 4 channels at position 1 mean NCHW, at position 3 NHWC. If both fit, 4 loses against
    1 and 3, and else it is NCHW. A shape of three dimensions is greyscale without a channel
    dimension. With an explicit layout the channel dimension may be symbolic: it is then taken as 1
    for gray, else 3.

    Args:
        spec: The input.
        preprocessing: Its ``layout`` and ``color`` are used.

    Returns:
        The image input, or None if the input does not take images.

    Raises:
        ConfigError: Mean or std have as many values as fit no channel count of this input.
    """
    if spec.dtype.name not in _PIXEL_DTYPES or len(spec.shape) not in (3, 4) or spec.axis != 0:
        return None
    if len(spec.shape) == 3:
        height, width = _size(spec.shape[1:], preprocessing)
        return _checked(ImageInput(spec.name, spec.dtype, 1, height, width, "nhw"), preprocessing)
    layout = preprocessing.layout
    if layout == "auto":
        layout = _layout(spec.shape[1], spec.shape[3])
        channels = _fixed(spec.shape[1 if layout == "nchw" else 3])
    else:
        symbolic = 1 if preprocessing.color == "gray" else 3
        dim = spec.shape[1 if layout == "nchw" else 3]
        channels = dim if isinstance(dim, int) else symbolic
    if channels not in _CHANNELS:
        return None
    first = 2 if layout == "nchw" else 1
    height, width = _size(spec.shape[first : first + 2], preprocessing)
    return _checked(ImageInput(spec.name, spec.dtype, channels, height, width, layout), preprocessing)


def image_size(spec: InputSpec, preprocessing: Preprocessing) -> tuple[int | None, int | None]:
    """Height and width of an image input, each None where the model and the options leave it open."""
    target = image_input(spec, preprocessing)
    return (None, None) if target is None else (target.height, target.width)


def plan_geometry(preprocessing: Preprocessing, target: ImageInput) -> Geometry:
    """Decide how images get the model's size.

    Args:
        preprocessing: Its ``resize`` and ``crop`` are used.
        target: The model's image input.

    Returns:
        The sizes; both None if the images keep their own.

    Raises:
        CalibrationError: Resize and crop end at another size than the model takes.
    """
    height, width = target.height, target.width
    fixed = None if height is None or width is None else (height, width)
    crop, letterbox = preprocessing.crop, preprocessing.letterbox
    resize = letterbox if isinstance(preprocessing.resize, str) else preprocessing.resize
    if resize is None and crop is None:
        return Geometry(fixed, None)
    if crop is None and isinstance(resize, int):
        crop = fixed
    end = crop or resize
    if isinstance(end, tuple) and not size_fits(end, target):
        option = "--crop" if crop else "--resize"
        raise CalibrationError(
            f"the preprocessing ends at {end[0]}x{end[1]} pixels, but input '{target.name}' takes "
            f"{height or 'any'}x{width or 'any'}; change {option} or leave --resize and --crop out"
        )
    return Geometry(resize, crop, letterbox is not None)


def size_fits(size: tuple[int, int], target: ImageInput) -> bool:
    """Whether an image of (height, width) fits the fixed dimensions of the input."""
    return target.height in (None, size[0]) and target.width in (None, size[1])


def fit_to_model(preprocessing: Preprocessing, inputs: Sequence[InputSpec]) -> Preprocessing:
    """Scale resize and crop of a preset to the model's size, as 256/224 becomes 342/299.

    A letterbox of the model's size gets that size; one of a size of its own keeps it.

    Args:
        preprocessing: One with other sizes than a preset, or without crop, is returned as it is.
        inputs: The model's inputs.

    Returns:
        The preset with the model's size as crop, if the model has one image input of fixed size.

    Raises:
        ConfigError: The size of an input is given, and none takes images.
    """
    fed = [spec for spec in inputs if spec.value is None]
    if preprocessing.input_size is not None and all(image_input(spec, preprocessing) is None for spec in fed):
        shown = ", ".join(map(str, fed))
        raise ConfigError(f"input_size is given, but no input takes images ({shown}); leave it out")
    target = image_input(fed[0], preprocessing) if len(fed) == 1 else None
    crop, resize = preprocessing.crop, preprocessing.resize
    if target is None or target.height is None or target.width is None:
        return preprocessing
    if resize == _LETTERBOX_OF_MODEL:
        return replace(preprocessing, resize=f"letterbox:{target.height}x{target.width}")
    if crop is None:
        return preprocessing
    if all((preset.resize, preset.crop) != (resize, crop) for preset in PRESETS.values()):
        return preprocessing
    height, width = target.height, target.width
    if not isinstance(resize, int):
        return replace(preprocessing, crop=(height, width), resize=resize and (height, width))
    ratio = resize / min(crop)
    if height == width:
        return replace(preprocessing, crop=(height, width), resize=round(height * ratio))
    return replace(
        preprocessing,
        crop=(height, width),
        resize=(round(height * ratio), round(width * ratio)),
    )


def to_model_input(pixels: Array, preprocessing: Preprocessing, target: ImageInput) -> Array:
    """Turn pixels into what the model takes.

    Integer inputs get the pixels themselves: scale, mean and std are for float inputs.

    Args:
        pixels: uint8 [count, height, width, channels], channels in the model's order.
        preprocessing: Scale, mean and std are used.
        target: The model's image input.

    Returns:
        C-contiguous array in the model's dtype and layout.
    """
    planes = np.moveaxis(pixels, -1, 1)
    if target.dtype.kind == "f":
        planes = _normalized(planes, preprocessing)
    if target.layout == "nhwc":
        planes = np.moveaxis(planes, 1, -1)
    elif target.layout == "nhw":
        planes = planes[:, 0]
    return np.ascontiguousarray(planes, target.dtype)


def _normalized(planes: Array, preprocessing: Preprocessing) -> Float32Array:
    """float32 [count, channels, height, width] of uint8 pixels of the same shape."""
    channels = planes.shape[1]
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    factors = np.broadcast_to(preprocessing.scale / std, channels).astype(np.float32)
    offsets = np.broadcast_to(mean / std, channels).astype(np.float32)
    values = np.empty(planes.shape, np.float32)
    for image, source in zip(values, planes, strict=True):  # plane by plane, within the cache
        for channel in range(channels):
            plane = image[channel]
            np.copyto(plane, source[channel])
            plane *= factors[channel]
            plane -= offsets[channel]
    return values


def _layout(second: int | str | None, last: int | str | None) -> Literal["nchw", "nhwc"]:
    if second in (1, 3):
        return "nchw"
    return "nhwc" if last in (1, 3) or second != 4 else "nchw"


def _fixed(dim: int | str | None) -> int | None:
    return dim if isinstance(dim, int) else None


def _size(shape: Sequence[int | str | None], preprocessing: Preprocessing) -> tuple[int | None, int | None]:
    """Height and width that the model fixes, or else the options."""
    fixed, asked = [_fixed(dim) for dim in shape], preprocessing.input_size
    if asked is None:
        return fixed[0], fixed[1]
    if any(have not in (None, size) for have, size in zip(fixed, asked, strict=True)):
        raise ConfigError(
            f"input_size is {asked[0]}x{asked[1]}, but the model's input is {fixed[0] or 'any'}x"
            f"{fixed[1] or 'any'}; leave it out, or give the model's"
        )
    return asked


def _checked(target: ImageInput, preprocessing: Preprocessing) -> ImageInput:
    for option, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) not in (1, target.channels):
            raise ConfigError(
                f"--{option} has {len(values)} values, but input '{target.name}' has {target.channels} "
                "channel(s); give one value, or one per channel"
            )
    return target
