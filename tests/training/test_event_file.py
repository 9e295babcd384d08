"""TensorBoard's event file, read back with protobuf messages made by others."""

import struct
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from covid_jax.training.event_file import EventFile, _checksum


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720, B.4: 32 bytes of zeros give 0x8A9136AA; masked as TFRecord does."""
    crc = 0x8A9136AA
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert struct.unpack("<I", _checksum(bytes(32))) == (masked,)
    assert crc32c(bytes(32)) == crc


def test_numbers_of_all_sizes_come_back(tmp_path: Path) -> None:
    file = EventFile(tmp_path, 300)
    file.scalar(2**40, "loss", -0.1)
    file.close()
    data, events = next(tmp_path.iterdir()).read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert data[8:12] == _checksum(data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        assert data[12 + length : 16 + length] == _checksum(data[12 : 12 + length])
        data = data[16 + length :]
    version, start, point = events
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (300, 1)
    assert point.step == 2**40
    assert [(v.tag, round(v.simple_value, 6)) for v in point.summary.value] == [("loss", -0.1)]
    assert 1.7e9 < point.wall_time < 1e10
