"""Decoding of one image file to uint8 pixels of the model's size."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from onnx_lapq.calibration.preprocessing import Color, Geometry
from onnx_lapq.errors import CalibrationError

__all__ = ["decode_image", "fit_image"]

# Pillow's other decoders stay shut: some start programs, and none is of use here.
_GREY = 114
"""What a letterbox is filled with, as where YOLO networks are trained."""
_MOST_TIMES = 256
"""How often longer a side may become; more is a shape that the model got by mistake, not a picture."""
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM")


def decode_image(path: Path, geometry: Geometry, channels: int, color: Color) -> npt.NDArray[np.uint8]:
    """Decode an image: the first frame, turned upright by its EXIF orientation.

    Palettes are resolved, CMYK becomes RGB, 16-bit greyscale keeps its upper byte, transparency is
    dropped (as torchvision and OpenCV do). Resizing is bilinear with antialiasing, as torchvision's
    on Pillow images.

    Args:
        path: The file.
        geometry: Sizes to resize and crop to.
        channels: 1, 3 or 4 (with transparency).
        color: Order of the channels.

    Returns:
        uint8 [height, width, channels].

    Raises:
        CalibrationError: The file cannot be decoded, has too many pixels, is smaller than the crop, or too
            small to be resized in earnest.
    """
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            return fit_image(opened, geometry, channels, color, str(path))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CalibrationError(
            f"{path}: the image has more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}, which "
            "guards against decompression bombs; make it smaller or remove it"
        ) from error
    except CalibrationError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(".")
        raise CalibrationError(
            f"{path}: the image cannot be decoded ({reason}); replace or remove the file"
        ) from error


def fit_image(
    image: Image.Image, geometry: Geometry, channels: int, color: Color, source: str
) -> npt.NDArray[np.uint8]:
    """Bring an opened image to the model's size and channels, as `decode_image` does.

    Args:
        image: Any mode.
        geometry: Sizes to resize and crop to.
        channels: 1, 3 or 4 (with transparency).
        color: Order of the channels.
        source: What messages call the image.

    Returns:
        uint8 [height, width, channels].

    Raises:
        CalibrationError: The image is smaller than the crop, or too small to be resized in earnest.
    """
    converted = _convert(ImageOps.exif_transpose(image), channels, color)
    pixels = np.asarray(_resize_and_crop(converted, geometry, source))
    return _arrange(pixels.reshape(*pixels.shape[:2], -1), channels, color)


def _convert(image: Image.Image, channels: int, color: Color) -> Image.Image:
    """Bring any mode to L, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):
        image = _from_deep_grey(image)
    if image.mode in ("P", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    wanted = "L" if channels == 1 or color == "gray" else "RGB" if channels == 3 else "RGBA"
    return image if image.mode == wanted else image.convert(wanted)


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """8-bit greyscale of a 16-bit image, which Pillow itself would clip at 255."""
    if image.mode.startswith("F"):
        raise ValueError("32-bit float pixels have no defined range, save the samples as .npy")
    values = np.asarray(image)
    if image.mode.startswith("I;16") or values.max() > 255:
        values = values.astype(np.int64) >> 8
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _resize_and_crop(image: Image.Image, geometry: Geometry, source: str) -> Image.Image:
    width, height = image.size
    size = geometry.resize
    if geometry.letterbox and isinstance(size, tuple):
        _check_resizing(image, size, min(size[0] / height, size[1] / width), source)
        return _letterboxed(image, *size)
    if isinstance(size, int):
        short = min(height, width)
        size = (max(size, size * height // short), max(size, size * width // short))
    if size is not None and size != (height, width):
        _check_resizing(image, size, max(size[0] / height, size[1] / width), source)
        height, width = size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if geometry.crop is None:
        return image
    crop_height, crop_width = geometry.crop
    if crop_height > height or crop_width > width:
        raise CalibrationError(
            f"{source}: {height}x{width} pixels are fewer than the crop of {crop_height}x{crop_width}; "
            "use a larger --resize"
        )
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    return image.crop((left, top, left + crop_width, top + crop_height))


def _check_resizing(image: Image.Image, size: tuple[int, int], times: float, source: str) -> None:
    """Refuse a size of too many pixels, or one at which a side is so many times as long."""
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise CalibrationError(
            f"{source}: {size[0]}x{size[1]} pixels after resizing are more than Pillow's limit of "
            f"{Image.MAX_IMAGE_PIXELS}; use a smaller --resize, or remove an image so long and thin"
        )
    if times > _MOST_TIMES:
        raise CalibrationError(
            f"{source}: {image.height}x{image.width} pixels would become {size[0]}x{size[1]}, a side more "
            f"than {_MOST_TIMES} times as long; give larger images, or check the size of the model's input"
        )


def _letterboxed(image: Image.Image, height: int, width: int) -> Image.Image:
    """The whole image in the middle of grey, as large as it can be."""
    ratio = min(height / image.height, width / image.width)
    size = max(round(image.width * ratio), 1), max(round(image.height * ratio), 1)
    canvas = Image.new(image.mode, (width, height), (_GREY,) * len(image.getbands()))
    canvas.paste(
        image.resize(size, Image.Resampling.BILINEAR), ((width - size[0]) // 2, (height - size[1]) // 2)
    )
    return canvas


def _arrange(pixels: npt.NDArray[np.uint8], channels: int, color: Color) -> npt.NDArray[np.uint8]:
    """Repeat grey to all channels, turn RGB into BGR."""
    if pixels.shape[2] != channels:
        return np.repeat(pixels, channels, axis=2)
    if color == "bgr" and channels > 1:
        order = [2, 1, 0, 3][:channels]
        return np.ascontiguousarray(pixels[:, :, order])
    return pixels
