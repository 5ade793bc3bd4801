"""Explanation maps drawn over slices: as one captioned PNG, and as the two layers of the web page."""

from __future__ import annotations

import functools
import io
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import btkeras
from btkeras.preprocessing.harmonize import head_box
from btkeras.preprocessing.preprocessor import to_channels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Perceptually uniform, and distinct for the colour-blind and in grey.
COLORMAP = "viridis"
SOFTWARE = f"btkeras {btkeras.__version__}"
# Share of the maximum at which the outline is drawn; the same as of the scores' IoU.
OUTLINE = 0.5
# Where the box is no more than the image's edge, it is not mentioned.
_BOX = "The thin box is what the network gets. "
_WARNING = "Shows what the prediction rests on, not where a tumour is. Research use only."
_OPACITY = 0.6
# A dark red, of a contrast of 7.3 on white.
_DOUBT = "#9b1c1c"
_DOTS_PER_INCH = 120


class Window(NamedTuple):
    """A region of an image, pixels: rows ``top`` to ``bottom - 1``, columns likewise."""

    top: int
    left: int
    bottom: int
    right: int


def input_window(image: NDArray[np.uint8], harmonize: bool) -> Window:
    """The region of an image, uint8 ``[height, width, 1 or 3]``, that a network gets: all of it, or the head's box."""
    if not harmonize:
        return Window(0, 0, *image.shape[:2])
    return Window(*head_box(to_channels(image, 1)[..., 0]))


class Caption(NamedTuple):
    """The image's name; decision, class and probability; the map's method and model; why it says little."""

    title: str
    decision: str
    method: str
    doubt: str = ""


def draw_overlay(
    image: NDArray[np.uint8], heat: NDArray[np.float32], caption: Caption, window: Window | None = None
) -> bytes:
    """Draws a slice beside the slice under its map, as PNG.

    ``image`` is uint8 ``[height, width, 1 or 3]``, at the size it was stored in; ``heat``, float32 ``[rows, columns]``
    in 0..1, is stretched over the window (of ``input_window``), by default over all of the image.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    window = window or input_window(image, harmonize=False)
    buffer = io.BytesIO()
    # The user's matplotlibrc must not change it, a name with $ is no formula, and glyphs that the font lacks are boxes.
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({"text.parse_math": False, "font.size": 9})
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure((8.4, 4.9), dpi=_DOTS_PER_INCH, facecolor="white")
        plain, covered = (figure.add_axes((left, 0.14, 0.42, 0.71)) for left in (0.02, 0.45))
        for axes in (plain, covered):
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
        _cover(covered, heat, window)
        scale = figure.colorbar(mpl.cm.ScalarMappable(cmap=COLORMAP), cax=figure.add_axes((0.915, 0.14, 0.018, 0.71)))
        scale.ax.axhline(OUTLINE, color="white", linewidth=0.8)
        scale.set_ticks([0, OUTLINE, 1], labels=["0", f"{OUTLINE:g}\n(line)", "1"], fontsize=8)
        scale.ax.set_ylabel("importance, share of this image's maximum", fontsize=8)
        scale.ax.yaxis.set_label_position("left")
        figure.text(0.02, 0.955, _short(caption.title))
        figure.text(0.02, 0.905, caption.decision, fontsize=11, fontweight="bold")
        figure.text(0.02, 0.865, caption.doubt, fontsize=9, color=_DOUBT)
        figure.text(0.02, 0.075, _short(caption.method, 110), fontsize=8)
        cropped = window != input_window(image, harmonize=False)
        figure.text(0.02, 0.03, _BOX * cropped + _WARNING, fontsize=8)
        figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    return buffer.getvalue()


def _cover(axes: Axes, heat: NDArray[np.float32], window: Window) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    # Pixels are squares around whole numbers.
    top, left, bottom, right = (edge - 0.5 for edge in window)
    colors = mpl.colormaps[COLORMAP](heat)
    colors[..., 3] = _OPACITY * np.sqrt(heat)
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    axes.imshow(colors, extent=(left, right, bottom, top), interpolation="bilinear", aspect=axes.get_aspect())
    if (heat >= OUTLINE).any() and (heat < OUTLINE).any():
        y, x = (
            low + (np.arange(cells) + 0.5) * (high - low) / cells
            for low, high, cells in zip((top, left), (bottom, right), heat.shape, strict=True)
        )
        axes.contour(x, y, heat, levels=[OUTLINE], colors="white", linewidths=0.8)
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.5, alpha=0.6)
    axes.add_patch(frame)
    axes.set(**limits)


def _short(text: str, longest: int = 78) -> str:
    """A text that fits on one line: its middle is left out."""
    # A file's name may hold anything, even bytes that are no text.
    text = "".join(character if character.isprintable() else "?" for character in text)
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


# Longer sides are shown smaller: slices are 256 to 512 pixels.
LONGEST = 1024
# Palette entries of the map's levels; behind them comes the outline's.
_LEVELS = 255


def image_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes pixels, uint8 ``[height, width, 1 or 3]``, as PNG of at most ``LONGEST`` pixels a side."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((LONGEST, LONGEST))
    return _png(image)


def map_png(heat: NDArray[np.float32], window: Window, shape: tuple[int, int]) -> bytes:
    """Draws a map as a transparent PNG to be laid over ``image_png``, in the colours of ``predict --explain``.

    Args as for ``draw_overlay``; ``shape`` is the image's height and width before it was made smaller.
    """
    scale = min(1.0, LONGEST / max(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    top, left, bottom, right = (round(edge * scale) for edge in window)
    size = max(1, right - left), max(1, bottom - top)
    values = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    levels = np.round(np.clip(values, 0, 1) * (_LEVELS - 1)).astype(np.uint8)
    levels[_outline(values >= OUTLINE)] = _LEVELS
    canvas = np.zeros((height, width), np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = levels[: height - top, : width - left]
    image, (palette, opacities) = Image.fromarray(canvas).convert("P"), _palette()
    image.putpalette(palette)
    return _png(image, transparency=opacities)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a region with a neighbour outside it; the image's edge is no outside."""
    padded = np.pad(inside, 1, mode="edge")
    neighbors = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~neighbors


@functools.cache
def _palette() -> tuple[bytes, bytes]:
    """Colours and opacities of the levels, then of the outline."""
    import matplotlib as mpl

    values = np.linspace(0, 1, _LEVELS)
    colors = np.vstack([np.round(mpl.colormaps[COLORMAP](values)[:, :3] * 255), [255, 255, 255]])
    opacities = np.append(np.round(values * 255), 255)
    return colors.astype(np.uint8).tobytes(), opacities.astype(np.uint8).tobytes()


def _png(image: Image.Image, **settings: object) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("Software", SOFTWARE)
    image.save(buffer, "PNG", pnginfo=info, **settings)
    return buffer.getvalue()
