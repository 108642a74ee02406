"""What pixels image files become: depth, transparency, orientation, and what is told of them."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.folders import folder, get, make_tree, paint, png, refused
from PIL import Image

from bench.data import decode
from bench.data.decode import decode_images


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))


def deep_colours(file: Path, value: int, kind: str) -> Path:
    """4x4 pixels of 16 bits a channel, opaque."""
    if kind == "ppm":
        file = file.with_suffix(".ppm")
        file.write_bytes(b"P6 4 4 65535\n" + struct.pack(">H", value) * 48)
        return file
    alpha = [0xFFFF] if kind.endswith("A") else []
    channels = [value] * (3 if kind.startswith("RGB") else 1) + alpha
    row = b"\0" + struct.pack(f">{len(channels)}H", *channels) * 4
    return png(file, 4, 4, {"RGB": 2, "RGBA": 6, "LA": 4}[kind], row * 4)


def deep_grey(file: Path, values: npt.ArrayLike) -> Path:
    Image.fromarray(np.asarray(values, np.uint16)).save(file)
    return file


# --- ordinary files ---------------------------------------------------------------------------------


def test_eight_bit_colours_are_what_they_were(tmp_path: Path) -> None:
    """Committed results name the fingerprints of such folders."""
    for split, n in (("train", 3), ("test", 2)):
        for c, name in enumerate(("cat", "dog")):
            (tmp_path / "plain" / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = (np.arange(48).reshape(4, 4, 3) * (5 + c) + 7 * i + len(split)) % 256
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / "plain" / split / name / f"{i}.png")
    assert get(folder(tmp_path / "plain")).fingerprint == "9bb4a5494d146b788b17aac5c4ad8e77"


@pytest.mark.parametrize("ending", ["jpg", "jfif", "jpe", "webp"])
def test_compressed_colours_are_those_of_pil(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = tmp_path / f"a.{ending}"
    Image.fromarray(noise).save(file, format="WEBP" if ending == "webp" else "JPEG")
    with Image.open(file) as opened:
        assert np.array_equal(decode_images([file], None)[0].transpose(1, 2, 0), np.asarray(opened))


# --- 16 bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(0, 8), (1, 8), (255, 8), (256, 9), (4095, 12), (32767, 15), (32768, 16), (65535, 16)],
)
def test_greys_of_16_bits_are_scaled_to_the_bits_that_the_set_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], largest: int, bits: int
) -> None:
    ramp = np.linspace(0, largest, 16).astype(np.uint16).reshape(4, 4)
    files = [deep_grey(tmp_path / f"{i}.png", ramp // (2 - i)) for i in range(2)]
    expected = np.stack([ramp // 2, ramp])[:, None] >> (bits - 8)
    assert np.array_equal(decode_images(files, None), expected)
    said = f"16-bit images hold values to {largest:,}: read as {bits} bits\n"
    assert capsys.readouterr().err == ("" if bits == 16 else said)


def test_eight_bit_files_beside_16_bit_ones_are_not_scaled(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 200).save(tmp_path / "a.png")
    files = [tmp_path / "a.png", deep_grey(tmp_path / "b.tif", np.full((4, 4), 4000))]
    assert decode_images(files, None)[:, 0, 0, 0].tolist() == [200, 250]


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA", "ppm"])
def test_colours_of_16_bits_whose_high_byte_is_empty_are_refused(tmp_path: Path, kind: str) -> None:
    root = make_tree(tmp_path / "set")
    deep = deep_colours(root / "train/dog/deep.png", 255, kind)
    refused(folder(root), str(deep), "16 bits a channel", "convert them to 8 bits")
    deep_colours(deep, 0, kind)
    whole = deep_colours(root / "train/dog/whole.png", 0x9ABC, kind)
    assert decode_images([deep, whole], None)[:, 0, 0, 0].tolist() == [0, 0x9A]


# --- transparency -----------------------------------------------------------------------------------


def transparent(kind: str) -> Image.Image:
    """Black that is drawn in its right half alone."""
    alpha = Image.new("L", (4, 4), 0)
    alpha.paste(255, (2, 0, 4, 4))
    black = Image.new("L", (4, 4), 0)
    if kind == "RGBA":
        return Image.merge("RGBA", (black, black, black, alpha))
    if kind == "LA":
        return Image.merge("LA", (black, alpha))
    keyed = Image.new("L", (4, 4), 7)  # 7 is the value of what is transparent
    keyed.paste(0, (2, 0, 4, 4))
    if kind == "L":
        return keyed
    if kind == "RGB":
        return Image.merge("RGB", (keyed, keyed, keyed))
    palette = keyed.point(lambda value: 1 if value else 0)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    return palette


@pytest.mark.parametrize(
    ("kind", "key", "ending"),
    [
        *(("RGBA", None, "png"), ("RGBA", None, "tif"), ("RGBA", None, "webp"), ("LA", None, "png")),
        *(
            ("L", 7, "png"),
            ("RGB", (7, 7, 7), "png"),
            ("P", 1, "png"),
            ("P", b"\xff\0", "png"),
            ("P", 1, "gif"),
        ),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, kind: str, key: object, ending: str) -> None:
    keyed = {} if key is None else {"transparency": key}
    lossless = {"lossless": True} if ending == "webp" else {}
    transparent(kind).save(tmp_path / f"a.{ending}", **keyed, **lossless)
    image = decode_images([tmp_path / f"a.{ending}"], None)[0]
    assert np.array_equal(image, np.broadcast_to([255, 255, 0, 0], image.shape))
    assert image.shape[0] == (1 if kind in ("L", "LA") else 3)


def test_opaque_pictures_keep_their_values(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    noise[..., 3] = 255
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert np.array_equal(decode_images([tmp_path / "a.png"], None)[0], noise[..., :3].transpose(2, 0, 1))


# --- orientation ------------------------------------------------------------------------------------

TURNED = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"} | {
    6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"
}  # fmt: skip


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:] = 255, 128  # whole blocks of a JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_held = Image.fromarray(upright).transpose(Image.Transpose[TURNED[orientation]])
    kept = {"lossless": True} if ending == "webp" else {}
    as_held.save(tmp_path / f"a.{ending}", exif=exif, **kept)
    found = decode_images([tmp_path / f"a.{ending}"], None)[0].transpose(1, 2, 0)
    assert np.abs(found.astype(int) - upright).max() <= (3 if ending == "jpg" else 0)


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    root = make_tree(tmp_path / "set")
    Image.new("RGB", (6, 4)).save(root / "train/dog/turned.png", exif=exif)
    refused(folder(root), "turned.png is 4x6")


def test_damaged_orientation_is_passed_over(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01")
    assert decode_images([tmp_path / "a.png"], None)[0, :, 0, 0].tolist() == [1, 2, 3]
    assert not recwarn.list


# --- what is told -----------------------------------------------------------------------------------


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    get(folder(tmp_path / "set"))
    return capsys.readouterr().err.splitlines()[1:]


def test_what_is_skipped_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = make_tree(tmp_path / "set") / "train"
    for name in ("cat/a.avif", "dog/b.AVIF", "dog/README", "cat/.hidden.avif"):
        (train / name).write_bytes(b"x")
    (train / "cat/more").mkdir()
    paint(train / "loose.png", 1)
    assert told(tmp_path, capsys) == [
        "set: skipped in train/: 2 .avif, 1 folder, 1 image outside class folders, 1 without an ending"
    ]


def test_copies_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "set")
    for name in ("train/cat/2.png", "train/dog/2.png", "test/dog/2.png"):
        paint(root / name, 1)
    assert told(tmp_path, capsys) == [
        "set: 2 of 6 training images are copies of another",
        "set: 1 of 3 test images are training images too",
    ]


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", ("cat",))
    refused(folder(root), str(root), "one class, cat", "needs two")


def test_a_set_larger_than_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode.np, "empty", full)
    refused(folder(make_tree(tmp_path / "set")), "6 images of 4x4 do not fit in memory", "image_size")
