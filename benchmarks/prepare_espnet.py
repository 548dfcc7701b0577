"""Preparing audio, files of any format to 16 kHz mono: `beatline prepare`'s store against ESPnet's way, one
file at a time.

./bench.sh prepare_espnet        ESPnet's way is what its `format_wav_scp` stage does with each file (its
                                 script is no part of the package): soundfile reads, resampy resamples all
                                 channels,
its own writer writes FLAC; the mean over channels is added here, because its recipe takes mono files. Ours
decodes with as many workers as there are threads.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import audio_files
import harness
import models
import peers
import soundfile

FILES = 200


def espnets_way(files: Sequence[Path], out: Path) -> None:
    """FLAC files at 16 kHz mono and a wav.scp."""
    import resampy
    from espnet2.fileio.sound_scp import SoundScpWriter

    with SoundScpWriter(str(out), str(out / "wav.scp"), format="flac") as writer:
        for file in files:
            wave, rate = soundfile.read(file)
            if rate != models.SAMPLE_RATE:
                wave = resampy.resample(wave, rate, models.SAMPLE_RATE, axis=0)
            writer[file.stem] = models.SAMPLE_RATE, wave if wave.ndim == 1 else wave.mean(axis=1)


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """One comparison."""
    if not peers.available("espnet2", "resampy"):
        return
    with harness.scratch() as name:
        folder = Path(name)
        files = audio_files.write_mixed(folder / "mixed", 8 if options.smoke else FILES)
        lines = [f"{file},noise,{'test' if n == 0 else 'train'}" for n, file in enumerate(files)]
        (folder / "clips.csv").write_text("\n".join(["file,labels,split", *lines]) + "\n")

        def ours() -> None:
            shutil.rmtree(folder / "store", ignore_errors=True)
            models.prepare(folder)

        def theirs() -> None:
            espnets_way(files, folder / "espnet")

        yield harness.compare(
            "prepare_espnet/time",
            f"{len(files)} mixed files of 2 to 10 s to 16 kHz mono, against ESPnet's way",
            ours,
            theirs,
            options.pairs,
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
