"""From encoded bytes to an upright RGB image."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from linrep.sample import IMAGE_FORMATS

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""


class BadImage(ValueError):
    """The bytes are no image that can be used; the message says why."""


def decode(encoded: bytes) -> Image.Image:
    """An upright RGB image from its encoded bytes.

    Transparency is laid over white and the camera's orientation is applied, as transformers does when it opens files. 16-bit grey
    keeps its upper eight bits, where Pillow would clip it to white. Of several frames or pages the first one counts.

    Only `IMAGE_FORMATS` are decoded, whatever the file is called: some of Pillow's other decoders start programs.

    Raises:
        BadImage: Empty, not an image, cut short, corrupt, without pixels, or so large that it must be an attack.
    """
    if not encoded:
        raise BadImage("no image bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; its bomb warning is an error instead:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=tuple(IMAGE_FORMATS))
            image.load()
            if 0 in image.size:
                raise BadImage(f"image of {image.width}x{image.height} pixels")
            if image.getexif().get(_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
            return to_rgb(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"image too large: {error}") from error
    except Image.UnidentifiedImageError:
        known = ", ".join(IMAGE_FORMATS)
        raise BadImage(f"not an image of {known}: {len(encoded)} bytes starting with {encoded[:8]!r}") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever they trip over (OSError, SyntaxError, struct.error, IndexError ...)
        raise BadImage(f"corrupt or truncated image: {type(error).__name__}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image from any of Pillow's modes."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if "A" in image.getbands() or image.mode == "RGBa" or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(grey: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Eight bits from more: wide integers up to 255 are taken as they are, floats up to 1 as shares of white."""
    if np.issubdtype(grey.dtype, np.floating):
        grey = np.nan_to_num(grey, nan=0.0, posinf=255.0, neginf=0.0)
        grey = grey * 255 if grey.max() <= 1 else grey
    elif grey.dtype.itemsize == 2 or grey.max() > 255:
        grey = grey.astype(np.int64) >> 8
    return np.clip(grey, 0, 255).astype(np.uint8)
