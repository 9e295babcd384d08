"""TensorBoard's event file: protobuf messages in TFRecord frames.

It is written here because tensorboardX imports torch where that is installed, which costs every run
some seconds and half a gigabyte.
"""

import io
import struct
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


class EventFile:
    """An event file of one process; its caller flushes it.

    Args:
      folder: of TensorBoard's files; made if missing.
      first_step: TensorBoard hides points of earlier files from this step on.

    Raises:
      OSError: here and in each method, if the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("xb")
        self.flush, self.close = self._file.flush, self._file.close
        self._write(3, b"brain.Event:2")
        self._write(2, first_step, 7, _message(1, 1))  # SessionLog.START
        self.flush()

    def scalar(self, step: int, name: str, value: float) -> None:
        """Adds a point to a curve."""
        self._summary(step, _message(1, name.encode(), 2, np.float32(value)))

    def image(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a picture."""
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "png")
        height, width, channels = pixels.shape
        image = _message(1, height, 2, width, 3, channels, 4, encoded.getvalue())
        self._summary(step, _message(1, name.encode(), 4, image))

    def _summary(self, step: int, value: bytes) -> None:
        self._write(2, step, 5, _message(1, value))

    def _write(self, *fields: int | float | bytes) -> None:
        """Appends an Event: its time, and these fields."""
        event = _message(1, time.time(), *fields)
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _message(*fields: int | float | np.float32 | bytes) -> bytes:
    """A protobuf message of pairs: field number, value; a ``float`` is stored as a double."""
    encoded = b""
    for number, value in zip(fields[::2], fields[1::2], strict=True):
        if isinstance(value, bytes):
            kind, content = 2, _varint(len(value)) + value
        elif isinstance(value, np.generic):
            kind, content = 5, struct.pack("<f", value)
        elif isinstance(value, float):
            kind, content = 1, struct.pack("<d", value)
        else:
            kind, content = 0, _varint(value)
        encoded += _varint(int(number) << 3 | kind) + content
    return encoded


def _varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


_CRC = list(range(256))  # of each byte, CRC-32C (Castagnoli)
for _ in range(8):
    _CRC = [entry >> 1 ^ (entry & 1) * 0x82F63B78 for entry in _CRC]


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C that ends each part of a TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
