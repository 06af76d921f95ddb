"""A PACS as a source and a sink, over DICOMweb or DIMSE."""

from promptseg.io.pacs.address import Address, is_address, parse_address

__all__ = ["Address", "is_address", "parse_address"]
