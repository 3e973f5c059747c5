"""Gather sound that anyone may train on: Debian's free packages, spoken text, clips and film tracks of a manifest.

    python -m models.train.sound_corpus --clips shared/data/manifest.csv --out build/sound-corpus
    python -m models.train.sound_corpus --scenes --out build/sound-scenes

Packages are fetched with `apt-get download`, unpacked and never installed; only their sound is kept, as one file of
16-bit samples beside a CSV that says what lies where. Nothing of it is part of the product.
"""

import argparse
import csv
import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]  # types-tqdm is not worth a dependency

from models.errors import ModelError
from models.logmel import SAMPLE_RATE_HZ

# Recorded or designed sounds under licences that allow use, change and redistribution; `models/weights/README.md`
# names each package's.
PACKAGES = (
    "asterisk-core-sounds-en-wav",
    "boswars-data",
    "bzflag-data",
    "colobot-common-sounds",
    "freedink-data",
    "frozen-bubble-data",
    "gnome-control-center-data",
    "hedgewars-data",
    "hydrogen-drumkits",
    "klettres-data",
    "ktuberling-data",
    "lmms-common",
    "megaglest-data",
    "minetest-data",
    "nexuiz-data",
    "openarena-081-misc",
    "openarena-085-data",
    "openarena-088-data",
    "openarena-data",
    "oxygen-sounds",
    "pingus-data",
    "scorched3d-data",
    "sonic-pi-samples",
    "sound-theme-freedesktop",
    "supertux-data",
    "tuxpaint-stamps-default",
    "ufoai-sound",
    "warmux-data",
    "warzone2100-data",
    "wesnoth-1.16-data",
    "wesnoth-1.16-music",
    "widelands-data",
)
# What a camera hears all day: streets, markets, schools, engines, wind, music. The heads alone learn from it, as from
# what is none of their kinds; the network was distilled before.
SCENE_PACKAGES = (
    "asterisk-moh-opsound-wav",
    "extremetuxracer-data",
    "lincity-ng-data",
    "lugaru-data",
    "marsshooter-data",
    "searchandrescue-data",
    "supertuxkart-data",
    "torcs-data",
    "trigger-rally-data",
    "unknown-horizons",
)
SPEECH_PACKAGES = ("espeak-ng", "espeak-ng-data", "libespeak-ng1", "libpcaudio0", "libsonic0")
SOUND_SUFFIXES = frozenset({".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".m4a", ".aif", ".aiff"})
ZIP_SUFFIXES = frozenset({".pk3", ".pk4", ".wz", ".zip", ".mgpkg", ".wmf"})
FILE_MAX_S = 24.0  # of one file: or music would crowd out the short sounds
FILE_MIN_S = 0.1
VOICES = ("en", "en-us", "de", "fr", "es", "it", "ru", "cmn", "hi", "ar", "sv", "pt")
VARIANTS = ("", "+f1", "+f3", "+f5", "+m2", "+m4", "+m7", "+croak", "+whisper", "+whisperf")
SENTENCES = (
    "good morning, the train to the harbour leaves in ten minutes from platform four",
    "help me, please, somebody help, call the police now",
    "yes, no, perhaps, I told you, come over here and look at this",
    "one two three four five six seven eight nine ten",
    "the weather tomorrow will be cloudy with a little rain in the evening",
    "stop it, get away from me, leave me alone",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the corpus.

    Attributes:
        source: Package, `speech`, or `manifest`.
        path: The file within it.
        start: First sample.
        length: Samples.
        labels: What a manifest says is heard, semicolon separated; empty elsewhere.
        group: Recording that it belongs to: never split between training and checking.
    """

    source: str
    path: str
    start: int
    length: int
    labels: str = ""
    group: str = ""


def decode(file: Path | io.BytesIO, max_s: float = FILE_MAX_S) -> NDArray[np.float32]:
    """Decode the first sound track to float32 ``(M,)``, 16 kHz mono; empty where there is none or it is broken."""
    parts: list[NDArray[np.float32]] = []
    samples = 0
    try:
        with av.open(file if isinstance(file, io.BytesIO) else str(file), mode="r") as container:
            if not container.streams.audio:
                return np.zeros(0, np.float32)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    parts.append(piece.to_ndarray().reshape(-1).astype(np.float32))
                    samples += parts[-1].size
                if samples >= max_s * SAMPLE_RATE_HZ:
                    break
    except (av.FFmpegError, ValueError, OSError):
        return np.zeros(0, np.float32)
    return np.concatenate(parts)[: int(max_s * SAMPLE_RATE_HZ)] if parts else np.zeros(0, np.float32)


def package_sounds(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield path and sound of every sound file of an unpacked package, zip containers opened."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        name = str(path.relative_to(folder))
        if path.suffix.lower() in SOUND_SUFFIXES:
            yield name, decode(path)
        elif path.suffix.lower() in ZIP_SUFFIXES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in sorted(archive.namelist()):
                    if Path(member).suffix.lower() in SOUND_SUFFIXES:
                        yield f"{name}!{member}", decode(io.BytesIO(archive.read(member)))


def fetch(package: str, cache: Path) -> Path | None:
    """Download a Debian package into the cache; None where the archive lacks it."""
    found = sorted(cache.glob(f"{package}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "download", "-qq", package], cwd=cache, check=False)
        found = sorted(cache.glob(f"{package}_*.deb"))
    return found[-1] if found else None


def unpack(deb: Path, folder: Path) -> None:
    """Unpack a package without installing it."""
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)


def spoken(cache: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield speech in several languages and voices, made by espeak-ng."""
    with tempfile.TemporaryDirectory() as root:
        for package in SPEECH_PACKAGES:
            deb = fetch(package, cache)
            if deb is None:
                return
            unpack(deb, Path(root))
        libraries = sorted({str(p.parent) for p in Path(root).rglob("*.so*")})
        program = Path(root) / "usr/bin/espeak-ng"
        data = next(Path(root).rglob("espeak-ng-data/phontab")).parent
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
        for number, (voice, variant) in enumerate((v, x) for v in VOICES for x in VARIANTS):
            pitch, speed = str(20 + 13 * number % 80), str(110 + 37 * number % 160)
            command = [
                str(program),
                f"--path={data.parent}",
                "-v",
                voice + variant,
                "-p",
                pitch,
                "-s",
                speed,
                "--stdout",
            ]
            text = SENTENCES[number % len(SENTENCES)]
            made = subprocess.run([*command, text], env=environment, capture_output=True, check=False)
            yield f"{voice}{variant}", decode(io.BytesIO(made.stdout))


def clips(manifest: Path) -> Iterator[tuple[dict[str, str], NDArray[np.float32]]]:
    """Yield row and sound of a manifest's sounds and films that may be trained on."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train" and row["train_ok"] == "yes"]
    for row in rows:
        if row["kind"] == "audio" or (row["kind"] == "video" and row["has_sound"] == "yes"):
            yield row, decode(manifest.parent / row["path"])


def gather(
    out: Path, cache: Path, manifest: Path | None, packages: Sequence[str] | None = None, *, has_speech: bool = True
) -> list[Piece]:
    """Write ``samples.i16`` and ``pieces.csv`` into a folder.

    Args:
        out: Made if it is missing.
        cache: Where packages are downloaded to, and looked for first.
        manifest: Labelled clips to add, or None.
        packages: None: `PACKAGES`.
        has_speech: Add speech by espeak-ng.
    """
    out.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    pieces: list[Piece] = []
    with (out / "samples.i16").open("wb") as file:

        def keep(source: str, path: str, sound: NDArray[np.float32], labels: str = "", group: str = "") -> None:
            if sound.size < FILE_MIN_S * SAMPLE_RATE_HZ or float(np.abs(sound).max()) < 1e-3:
                return
            start = file.tell() // 2
            file.write((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
            pieces.append(Piece(source, path, start, sound.size, labels, group or f"{source}/{path}"))

        for package in tqdm(PACKAGES if packages is None else packages, desc="packages"):
            deb = fetch(package, cache)
            if deb is None:
                tqdm.write(f"{package}: not in this Debian, left out")
                continue
            folder = Path(tempfile.mkdtemp())
            try:
                unpack(deb, folder)
                for path, sound in package_sounds(folder):
                    keep(package, path, sound)
            finally:
                shutil.rmtree(folder)
        for path, sound in spoken(cache) if has_speech else ():
            keep("speech", path, sound)
        if manifest is not None:
            for row, sound in clips(manifest):
                labels = row["labels"] if row["kind"] == "audio" else "?"  # nobody listened to the films
                keep("manifest", row["path"], sound, labels or "none", row["group"])
    with (out / "pieces.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("source", "path", "start", "length", "labels", "group"))
        writer.writerows((p.source, p.path, p.start, p.length, p.labels, p.group) for p in pieces)
    return pieces


def gather_all(folder: Path, manifest: Path | None) -> None:
    """What the heads learn from, into `sounds` and `scenes` of a folder, packages into `packages`; what is there stays.

    Raises:
        ModelError: There is no `apt-get` to fetch packages with, and one is needed.
    """
    for name, packages, clips_of in (("sounds", PACKAGES, manifest), ("scenes", SCENE_PACKAGES, None)):
        if (folder / name / "pieces.csv").is_file():
            continue
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise ModelError(
                f"{folder / name} is missing and is made of Debian packages, which need apt-get and dpkg-deb; gather it"
                " on Debian or Ubuntu and copy the folder here"
            )
        gather(folder / name, folder / "packages", clips_of, packages, has_speech=name == "sounds")


def load(folder: Path) -> tuple[NDArray[np.int16], list[Piece]]:
    """Map what `gather` wrote: int16 ``(M,)`` and the pieces."""
    with (folder / "pieces.csv").open(encoding="utf-8", newline="") as table:
        pieces = [
            Piece(r["source"], r["path"], int(r["start"]), int(r["length"]), r["labels"], r["group"])
            for r in csv.DictReader(table)
        ]
    return np.memmap(folder / "samples.i16", dtype="<i2", mode="r"), pieces


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="gather free sound")
    parser.add_argument("--clips", type=Path, help="manifest of labelled clips")
    parser.add_argument("--cache", type=Path, default=Path("build/debs"))
    parser.add_argument("--out", type=Path, default=Path("build/sound-corpus"))
    parser.add_argument("--scenes", action="store_true", help="what cameras hear all day, for the heads alone")
    arguments = parser.parse_args()
    packages = SCENE_PACKAGES if arguments.scenes else PACKAGES
    pieces = gather(arguments.out, arguments.cache, arguments.clips, packages, has_speech=not arguments.scenes)
    minutes = sum(piece.length for piece in pieces) / SAMPLE_RATE_HZ / 60
    tqdm.write(f"{len(pieces)} sounds, {minutes:.0f} minutes in {arguments.out}")


if __name__ == "__main__":
    main()
