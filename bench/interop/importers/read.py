"""Read distilled sets that other people published, in any known format."""

import dataclasses
import math

from bench.core.errors import UserError
from bench.core.registry import choose
from bench.data.dataset import Dataset
from bench.interop.importers.class_folders import read_folder
from bench.interop.importers.detect import PAIR, check_ending, detect
from bench.interop.importers.factorised import read_haba, read_idc, read_rtp
from bench.interop.importers.npz import read_frepo, read_kip
from bench.interop.importers.pixel_space import SPACES
from bench.interop.importers.request import Imported, ImportRequest
from bench.interop.importers.torch_files import read_dc, read_ddbench, read_mtt, read_plain

IMPORT_FORMATS = {
    "dc": "DC, DSA, DM, CAFE: {'data': [[images, labels], ...], 'accs_all_exps': ...}, a set per experiment",
    "mtt": "MTT, TESLA: images_best.pt and labels_best.pt, or numbered parts; needs --space and --lr",
    "datm": "DATM: as mtt with logits for labels, and lr_best.pt; needs --space",
    "idc": "IDC: data.pt = [images, targets] in [0, 1], also in folders by phase; needs --factor",
    "haba": "HaBa: images_best.pt and tensors in weights_best.pt or styles_best.pt; needs --space and --lr",
    "rtp": "RTP: {'compressor': state_dict} of bases and coefficients; needs --space",
    "frepo": "FRePo: an npz archive of image [N,H,W,C] and learned label",
    "kip": "KIP: an npz archive of images [N,H,W,C] and labels",
    "folder": "RDED, SRe2L: one folder of image files for each class, by name or number",
    "plain": "images and labels (and lr) in torch files (DD-Ranking), safetensors, npz or npy",
    "ddbench": "an artifact of ddbench",
}
_READ = {
    "dc": read_dc,
    "mtt": read_mtt,
    "datm": read_mtt,
    "idc": read_idc,
    "haba": read_haba,
    "rtp": read_rtp,
    "frepo": read_frepo,
    "kip": read_kip,
    "folder": read_folder,
    "plain": read_plain,
    "ddbench": read_ddbench,
}
_ONLY = {"factor": "idc", "downsample": "rtp"}  # flag -> the only format that uses it


def read_set(request: ImportRequest, dataset: Dataset) -> list[Imported]:
    """Read every distilled set of a file or folder.

    Args:
        request: the file or folder, and what it does not say of itself.
        dataset: the data set that the sets were made from; they are checked against it.

    Returns:
        The sets, one for each experiment of the file.

    Raises:
        UserError: the file cannot be read, does not fit the data set, wants to run code, or does not say
            something that accuracy depends on; then the message names the missing flag.
    """
    choose("format", request.format, ("auto", *IMPORT_FORMATS))
    kind, path = detect(request.path) if request.format == "auto" else (request.format, request.path)
    kind = _settle(request, kind)
    check_ending(kind, path)
    request = dataclasses.replace(request, format=kind, path=path)
    if request.space is not None:
        choose("space", request.space, SPACES)
    for flag, owner in _ONLY.items():
        value = getattr(request, flag)
        if value is not None and kind != owner:
            raise UserError(f"{path} is of format {kind}, which has no {flag}: leave out --{flag}")
        if value is not None and value < 1:
            raise UserError(f"--{flag} {value} is below 1: give a whole number from 1")
    if request.lr is not None and not (math.isfinite(request.lr) and request.lr > 0):
        raise UserError(f"--lr {request.lr:g} is no learning rate: give a positive number")
    return _READ[kind](request, dataset)


def _settle(request: ImportRequest, kind: str) -> str:
    """The format; "idc" where a factor is given for a plain one. Raises UserError if it may be either."""
    if request.format != "auto" or kind not in ("plain", PAIR):
        return kind
    if request.factor is not None:
        return "idc"
    if kind == PAIR and request.space in (None, "raw01"):
        raise UserError(
            f"{request.path} is images in [0, 1] and labels without names, as IDC saves them too: pass "
            "--factor (2; 3 for ImageNet; 1 for IDC-I) if it is IDC's, else --format plain"
        )
    return "plain"
