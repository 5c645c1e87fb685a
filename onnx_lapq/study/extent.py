"""How far and how finely a landscape looks."""

from dataclasses import dataclass

from onnx_lapq.errors import ConfigError

__all__ = ["Extent"]


@dataclass(frozen=True)
class Extent:
    """How far and how finely to look.

    Attributes:
        pair: The two quantizers of the surface; None for the most coupled two.
        hessian: Step sizes in the Hessian, those with the largest curvature; 4 k (k - 1) + 18 k evaluations.
        grid: Points along each side of the surface; grid squared evaluations.
        span: How far the surface reaches, as a share of the step sizes.
        distance: Of the points for second derivatives, as a share of the step sizes; in the Hessian, give or
            take a quarter.

    Raises:
        ConfigError: A value makes no sense.
    """

    pair: tuple[str, str] | None = None
    hessian: int = 8
    grid: int = 11
    span: float = 0.5
    distance: float = 0.4

    def __post_init__(self) -> None:
        if self.hessian < 2:
            raise ConfigError(f"a Hessian of {self.hessian} step sizes was asked for; give 2 or more")
        if self.grid < 3:
            raise ConfigError(f"a surface of {self.grid} points a side was asked for; give 3 or more")
        for name, value, limit in (("span", self.span, 1), ("distance", self.distance, 0.8)):
            if not 0 < value < limit:
                raise ConfigError(f"{name} is {value}; give a share of the step sizes between 0 and {limit}")
