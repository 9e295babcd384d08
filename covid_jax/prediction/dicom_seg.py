"""A mask as a DICOM Segmentation object, which viewers lay over the series it was made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import covid_jax
from covid_jax.errors import DataError, need
from covid_jax.files import replacing
from covid_jax.io.dicom import read_headers
from covid_jax.io.geometry import Geometry
from covid_jax.io.read_scan import suppress_warnings
from covid_jax.runs.provenance import NOTICE

Masks = UInt8[np.ndarray, "n h w"]  # class ids
Headers = Sequence[Any]  # of DICOM files
Names = Sequence[str]  # of class ids 1, 2, ...
# Tags that must have a value, and those that may be empty (DICOM's types 1 and 2).
_NEEDED = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_NEEDED += ("SOPClassUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_OTHERS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
_OTHERS += ("StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator")


def source_headers(path: Path, series: Sequence[str]) -> list[Any]:
    """The headers of a series' files in the order of its slices, fit to be referred to.

    Missing tags that may be empty are added empty, as highdicom asks for them.

    Raises:
      ConfigError: if highdicom is not installed.
      DataError: if a header lacks what a segmentation refers to.
    """
    need("highdicom", "--format dicom-seg", "dicom")
    headers = read_headers(path, series)
    for file, header in headers:
        header.Modality = header.get("Modality") or "CT"  # which nothing else is read as
        enhanced = "PerFrameFunctionalGroupsSequence" in header  # positions are in there
        for tag in _OTHERS:
            setattr(header, tag, header.get(tag) or "")
        for tag in _NEEDED:
            if not header.get(tag) and not (enhanced and tag.startswith(("Image", "Pixel"))):
                raise DataError(f"{file}: no {tag}, which --format dicom-seg needs; leave that out")
    return [header for _, header in headers]


def write_segmentation(
    path: Path, masks: Masks, geometry: Geometry, headers: Headers, classes: Names, network: str
) -> None:
    """Writes class ids as a binary segmentation, a segment for each class.

    Args:
      path: of the file.
      masks: class ids, slices as displayed.
      geometry: of the series.
      headers: from ``source_headers``.
      classes: names of class ids 1, 2, ...
      network: its name, for the description of the algorithm.

    Raises:
      OSError: if it cannot be written.
    """
    import highdicom as hd

    concept = hd.sr.CodedConcept
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"covid_jax {network}"[:64],
        family=concept("123110", "DCM", "Artificial Intelligence"),
        version=covid_jax.__version__,
    )
    abnormal = concept("49755003", "SCT", "Morphologically Abnormal Structure")
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=abnormal,
            segmented_property_type=concept("52988006", "SCT", "Lesion"),
            anatomic_regions=[concept("39607008", "SCT", "Lung")],
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(classes, start=1)
    ]
    for header in headers:  # its files' own, or a lone slice's
        if not header.get("SliceThickness"):
            header.SliceThickness = geometry.spacing[0]
    with suppress_warnings():
        made = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=np.ascontiguousarray(geometry.from_stack(masks).transpose(2, 1, 0)),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="covid_jax",
            manufacturer_model_name="covid_jax",
            software_versions=covid_jax.__version__,
            device_serial_number="0",
            content_description=NOTICE,
            series_description="Lesions by covid_jax, research use only",
        )
    with replacing(path) as partial:
        made.save_as(partial)
