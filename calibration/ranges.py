"""The range of values that reaches the model, and whether it looks odd."""

from collections.abc import Mapping

from onnx_lapq.calibration.stored import Array

__all__ = ["implausible_range", "input_range"]

_UNSCALED = 20.0  # normalised pixels stay within a few units
_BEYOND_PIXELS = 300.0
_NARROW = 0.1


def input_range(batch: Mapping[str, Array]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each input.

    Args:
        batch: Feeds by input name, as ``Samples.batch`` gives them.

    Returns:
        (minimum, maximum) by input name, for inputs that hold any values.
    """
    return {name: (float(array.min()), float(array.max())) for name, array in batch.items() if array.size}


def implausible_range(minimum: float, maximum: float) -> str | None:
    """Tell whether the values of a float image input look wrong.

    Ask for image inputs of float type only: a column of a table may hold anything.

    Args:
        minimum: Smallest value that reaches the model.
        maximum: Largest value.

    Returns:
        What is odd, for the user, or None. Values around zero of some hundreds (Caffe) are ordinary.
    """
    shown = f"[{minimum:.4g}, {maximum:.4g}]"
    if minimum == maximum:
        return f"all values that reach the model are {minimum:.4g}; the images look blank"
    if max(-minimum, maximum) > _BEYOND_PIXELS:
        return (
            f"values in {shown} reach the model, beyond 0..255: mean and std seem to be for pixels "
            "scaled to 0..1; check --scale"
        )
    if maximum - minimum < _NARROW:
        return (
            f"values in the narrow range {shown} reach the model: mean and std seem to be for pixels "
            "of 0..255; check --scale"
        )
    if maximum <= 0:
        return (
            f"values in {shown} reach the model, none above 0: mean seems to be for other pixels; "
            "check --scale, --mean and --std"
        )
    if minimum >= 0 and maximum > _UNSCALED:
        return (
            f"values in {shown} reach the model: pixels that are not scaled; most float models want "
            "0..1 or normalised values, check --scale, --mean and --std"
        )
    return None
