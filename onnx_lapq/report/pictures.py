"""Samples that are images, with what the float and the quantized model find in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.errors import ConfigError, RunError, first_line

__all__ = ["FindBoxes", "Picture", "boxes_in", "map_of", "take_pictures"]

FindBoxes = Callable[[Mapping[str, AnyArray]], npt.ArrayLike]
"""Outputs on one image by name, without the axis of the samples, to boxes [found, 4 or more]: left, top,
right and bottom in pixels of the model's input."""

_MOST = 4
_CHANNELS = (1, 3)
_LEAST_SIDE = 4


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and the outputs on it.

    Attributes:
        image: As the model gets it, stretched over all shades, float64 [height, width, 3] from 0 to 1.
        outputs: Those of the float model and of the quantized one, by name, without the axis of the samples.
    """

    image: FloatArray
    outputs: tuple[Mapping[str, AnyArray], Mapping[str, AnyArray]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


def take_pictures(
    feeds: Mapping[str, AnyArray],
    wanted: Mapping[str, AnyArray],
    found: Mapping[str, AnyArray],
    *,
    blue_first: bool = False,
) -> tuple[Picture, ...]:
    """The first samples, where an input is an image.

    Args:
        feeds: A batch of samples, by input name.
        wanted: Outputs of the float model on the same samples, by name, [samples, ...].
        found: Those of the quantized model.
        blue_first: Whether the model takes blue, green, red.
    """
    found_images = (_images(values[:_MOST]) for values in feeds.values() if values.ndim == 4)
    images = next((image for image in found_images if image is not None), None)
    if images is None:
        return ()
    if blue_first:
        images = images[..., ::-1]
    count = min(len(array) for array in (images, *wanted.values()))
    return tuple(
        Picture(_stretched(images[at]), (_sample(wanted, at), _sample(found, at))) for at in range(count)
    )


def map_of(picture: Picture, side: int) -> FloatArray | None:
    """The first output that lies over the image, as one number for each place, [height, width].

    That is the value of a single channel, and else the number of the strongest channel.

    Args:
        picture: The image.
        side: 0 for the float model, 1 for the quantized one.
    """
    height, width = picture.size
    for values in picture.outputs[side].values():
        stack = values[np.newaxis] if values.ndim == 2 else values
        for channels in (stack, np.moveaxis(stack, -1, 0)) if stack.ndim == 3 else ():
            rows, columns = channels.shape[1:]
            if min(rows, columns) >= _LEAST_SIDE and rows * width == columns * height:
                found: FloatArray = channels[0] if len(channels) == 1 else channels.argmax(axis=0)
                return found.astype(np.float64)
    return None


def boxes_in(picture: Picture, side: int, find_boxes: FindBoxes) -> FloatArray:
    """The boxes that a user's function finds, [found, 4].

    Raises:
        RunError: The function failed.
        ConfigError: It gave something else than boxes.
    """
    try:
        outputs = {name: np.array(values) for name, values in picture.outputs[side].items()}
        boxes = np.asarray(find_boxes(outputs), dtype=np.float64)
    except Exception as error:
        raise RunError(
            f"find_boxes failed, and there is no page: {type(error).__name__}: {first_line(error)}"
        ) from error
    if boxes.ndim != 2 or boxes.shape[1] < 4:
        raise ConfigError(
            f"find_boxes gave an array of shape {boxes.shape}, and there is no page; return [boxes, 4]"
        )
    return boxes[:, :4]


def _sample(outputs: Mapping[str, AnyArray], at: int) -> dict[str, AnyArray]:
    return {name: values[at] for name, values in outputs.items()}


def _images(values: AnyArray) -> FloatArray | None:
    """An input of four axes as [samples, height, width, 3]; None where it holds no images."""
    if values.shape[1] in _CHANNELS:
        values = np.moveaxis(values, 1, -1)
    if values.shape[-1] not in _CHANNELS or min(values.shape[1:3]) < _LEAST_SIDE:
        return None
    return np.broadcast_to(values, (*values.shape[:3], 3)).astype(np.float64)


def _stretched(image: FloatArray) -> FloatArray:
    lowest, highest = image.min(), image.max()
    return (image - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(image)
