"""What a class is called when it is spoken of."""

import re


def spoken(name: str) -> str:
    """A class's own name, without the number that separates two classes of one name.

    >>> spoken("crane (134)"), spoken("crane")
    ('crane', 'crane')
    """
    return re.sub(r" \(\d+\)$", "", name)
