"""scripts/bleu.py prints what the sacrebleu command prints, compares two systems, and refuses bad files in a line."""

from __future__ import annotations

import gzip
import io
import json
import random
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bleu.py"
WORDS = ["Ein", "Mann", "sieht", "den", "grünen", "Hund,", "der", "vor", "Fußball-Platz", "3,5", "Runden", "läuft."]


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def bleu(monkeypatch, capsys, tmp_path):
    """`bleu("hyp", "ref", stdin=b"...")` in a folder with ref, hyp and base of 50 lines, base the worse one."""
    rng = random.Random(1)
    reference = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(50)]
    files = {"ref": reference} | {
        name: [" ".join(rng.choice(WORDS) if rng.random() < chance else word for word in s.split()) for s in reference]
        for name, chance in (("hyp", 0.2), ("base", 0.5))
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def call(*words, stdin=b""):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stopped:
            status = stopped.code
        return Result(status, *capsys.readouterr())

    return call


def sacrebleu(*words):
    command = [sys.executable, "-m", "sacrebleu", *words, "-f", "json", "-w", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    return printed if isinstance(printed, list) else [printed]


@pytest.mark.parametrize("references", [["ref"], ["ref", "base"]])
def test_scores_are_those_of_the_sacrebleu_command(bleu, references):
    theirs = sacrebleu(*references, "-i", "hyp", "-m", "bleu", "chrf", "ter")
    theirs += sacrebleu(*references, "-i", "hyp", "-m", "bleu", "-lc")
    result = bleu("hyp", *references, "--json")
    assert (result.status, result.err) == (0, "")
    ours = json.loads(result.out)
    names = ["bleu", "chrf2", "ter", "bleu_lowercased"]
    # Ten decimals, as printed there.
    assert [f"{ours[name]:.10f}" for name in names] == [f"{each['score']:.10f}" for each in theirs]
    assert [ours["signatures"][name] for name in names] == [each["signature"] for each in theirs]
    assert (ours["lines"], "comparison" in ours, "warning" in ours) == (50, False, False)
    shown = bleu("hyp", *references).out.splitlines()
    assert shown[0].split() == ["BLEU", f"{ours['bleu']:.2f}", theirs[0]["signature"]]
    assert shown[3].split() == [
        "BLEU,",
        "lower-cased,",
        "tokenised",
        f"{ours['bleu_lowercased']:.2f}",
        theirs[3]["signature"],
    ]
    tokens = f"{ours['hypothesis_tokens']:,} / {ours['reference_tokens']:,} tokens; 50 lines"
    assert shown[4] == f"{'length ratio':<28}  {ours['length_ratio']:.3f}  {tokens}"
    assert "multi-bleu.perl over text lower-cased and tokenised by Moses" in shown[-1]


def test_a_comparison(bleu):
    table = bleu("hyp", "ref", "--baseline", "base", "--samples", "200", "--seed", "3")
    rows = json.loads(bleu("hyp", "ref", "--baseline", "base", "--samples", "200", "--seed", "3", "--json").out)
    lines = table.out.splitlines()
    assert "Paired bootstrap against base: 200 resamples, seed 3" in lines
    assert [row["metric"] for row in rows["comparison"]] == ["BLEU", "chrF2", "TER"]
    for row in rows["comparison"]:
        assert row["p"] == 1 / 201
        assert row["system"] == pytest.approx(rows[row["metric"].lower()])
        assert row["difference"] == pytest.approx(row["system"] - row["baseline"])
        (shown,) = (line.split() for line in lines if line.startswith(row["metric"]) and line.endswith("%"))
        values = (f"{row['baseline']:.2f}", f"{row['system']:.2f}", f"{row['difference']:+.2f}")
        interval = (f"{row['low']:+.2f}", "to", f"{row['high']:+.2f}")
        assert shown == [row["metric"], *values, *interval, "0.0050", "100.0%"]
    assert (bleu("base", "ref", "--json").status, bleu("base", "ref", "--json").err) == (0, "")
    assert rows["comparison"][0]["baseline"] == pytest.approx(json.loads(bleu("base", "ref", "--json").out)["bleu"])


def test_standard_input_gzip_and_windows_line_ends_are_the_same_text(bleu):
    expected = bleu("hyp", "ref").out
    text = Path("hyp").read_bytes()
    Path("hyp.gz").write_bytes(gzip.compress(text))
    Path("ref.gz").write_bytes(gzip.compress(Path("ref").read_bytes()))
    assert bleu("hyp.gz", "ref.gz").out == expected
    assert bleu("-", "ref", stdin=text).out == expected
    assert bleu("-", "ref", stdin=b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")).out == expected


def test_tokenised_text_is_told_on_standard_error(bleu):
    Path("tok").write_text(Path("hyp").read_text(encoding="utf-8").replace(",", " ,"), encoding="utf-8")
    result = bleu("tok", "ref", "--json")
    assert result.status == 0
    assert result.err.startswith("bleu.py: warning: the hypotheses look tokenised and the references do not (a space")
    assert f"bleu.py: warning: {json.loads(result.out)['warning']}\n" == result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hyp", "short"], "short: 1 line, but hyp has 50: line 2 has no reference"),
        (["short", "ref"], "short: 1 line, but ref has 50: line 2 has no translation"),
        (["-", "ref"], "standard input: 2 lines, but ref has 50: line 3 has no translation"),
        (["hyp", "ref", "short"], "short: 1 line, but hyp has 50: line 2 has no reference"),
        (["hyp", "ref", "--baseline", "short"], "short: 1 line, but ref has 50: line 2 has no translation"),
        (["hyp", "nowhere"], "nowhere: no such file"),
        (["hyp", "empty"], "empty: no line in it"),
        (["latin", "ref"], "latin:2: byte 0xfc at byte 3 of the line is not UTF-8; convert the file to UTF-8"),
        (["hyp", "."], ".: this is a folder; a file is expected"),
        (["-", "-"], "- is standard input, which can be one of the files only"),
        (["hyp", "ref", "--baseline", "base", "--seed", "-1"], "--seed -1: expected 0 or more"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(bleu, words, message):
    Path("short").write_text("Ein Mann.\n", encoding="utf-8")
    Path("empty").write_bytes(b"")
    Path("latin").write_bytes("Ein\ngrün\n".encode("latin-1"))
    assert bleu(*words, stdin=b"Ein\nMann\n") == (2, "", f"bleu.py: {message}\n")


def test_options_that_are_no_numbers(bleu):
    for value in ("0", "many"):
        result = bleu("hyp", "ref", "--samples", value)
        assert (result.status, result.out) == (2, "")
        assert "argument --samples: " in result.err and value in result.err
