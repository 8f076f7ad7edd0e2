"""Images that stand beside the text of a row, one ``<image>`` in the text for each, as LLaMA-Factory has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from understudy.errors import FormatError
from understudy.types import JSON, ImagePart, Message, Part, TextPart
from understudy.types.fields import kind

PLACEHOLDER = "<image>"
_UNSUPPORTED = ("videos", "audios", "video", "audio")


def take_images(rest: dict[str, JSON], column: str, folder: str | None) -> list[str]:
    """Take the images out of a row: paths or URLs; a path that exists below `folder` is made a path from there.

    Raises:
        FormatError: they are no list of texts, or the row has videos or sounds.
    """
    for name in _UNSUPPORTED:
        if rest.get(name):
            raise FormatError("videos and sounds are not supported", field=name, mend="leave the row out")
    value = rest.pop(column, None) if column else None
    images = [value] if isinstance(value, str) else value or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise FormatError(f"expected a list of paths or URLs, not {kind(value)}", field=column)
    return [_located(image, folder) for image in images]


def place_images(messages: Sequence[Message], images: list[str], column: str) -> list[Message]:
    """Put each image where its placeholder stands. Without images, the placeholder is ordinary text.

    Raises:
        FormatError: there are not as many placeholders as images.
    """
    if not images:
        return list(messages)
    count = sum(message.text().count(PLACEHOLDER) for message in messages)
    if count != len(images):
        mend = f"write one {PLACEHOLDER} for each image"
        raise FormatError(f"{len(images)} images, but {count} placeholders", field=column, mend=mend)
    remaining = iter(images)
    return [_placed(message, remaining) for message in messages]


def lift_images(message: Message) -> tuple[Message, list[str]]:
    """Return the message with placeholders for its images, and the images: the inverse of `place_images`."""
    if not isinstance(message.content, tuple):
        return message, []
    images = [part.url for part in message.content if isinstance(part, ImagePart)]
    texts = [PLACEHOLDER if isinstance(part, ImagePart) else part.text for part in message.content]
    return replace(message, content="".join(texts)), images


def _placed(message: Message, images: Iterator[str]) -> Message:
    pieces = message.text().split(PLACEHOLDER)
    if len(pieces) == 1:
        return message
    parts: list[Part] = [TextPart(pieces[0])] if pieces[0] else []
    for piece in pieces[1:]:
        parts.append(ImagePart(next(images)))
        if piece:
            parts.append(TextPart(piece))
    return replace(message, content=tuple(parts))


def _located(image: str, folder: str | None) -> str:
    path = os.path.join(folder, image) if folder else image
    return path if folder and "://" not in image and os.path.isfile(path) else image
