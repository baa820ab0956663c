"""`seqtext generate`."""

from __future__ import annotations

import io
import json
import sys
from typing import Annotated, Any

import typer

from seqtext.cli.options import Device, Json, RunFolder, Threads


def generate(
    run: RunFolder,
    prompt: Annotated[str, typer.Option(help="The text to go on from; - reads it from stdin.")] = "",
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most probable token every time.")] = False,
    temperature: Annotated[
        float, typer.Option(help="Above 0: below 1 makes the probable more probable, above 1 less.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest tokens that have this probability together, at most 1.")
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="Search for the most probable end of the line, with so many hypotheses.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Texts to write; with --beam, the n best.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Tokens to write at most, ends of lines among them.")] = 100,
    lines: Annotated[
        int | None, typer.Option(help="Stop after this many ends of lines; without it, write on to --max-tokens.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="STRING", help="Stop where the text has this, and leave it out; may be repeated."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed of the draws; without it, every call draws anew.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Let <unk>, the unknown word, come as any other.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(help="What to write for, where the model is conditioned on labels (model.condition).")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write on from a prompt with a language model, and print prompt and text as the tokens come.

    Several samples are printed when they are done, parted by an empty line unless --lines 1 or --beam makes each one
    line. With --json, each is an object: prompt, text (what comes after it), tokens, log_probability (in nats, of the
    tokens given the prompt), and reason: lines, stop or length. Characters or words of the prompt that the model does
    not know are read as <unk>, which is told on stderr.
    """
    from seqtext.cli.library import api
    from seqtext.errors import InputError
    from seqtext.search.generate import Writing, WritingTask, read_prompt

    options: dict[str, Any] = {
        "greedy": greedy,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "beam": beam,
        "samples": samples,
        "max_tokens": max_tokens,
        "lines": lines,
        "stop": stop or [],
        "seed": seed,
        "allow_unknown": allow_unknown,
        "label": label,
    }
    Writing(**options)  # before anything is loaded
    model = api.load(run, device=device)
    if not isinstance(model.task, WritingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}; seqtext generate needs a language model's")
    if prompt == "-":
        prompt = _stdin()
    if unknown := read_prompt(model.task, prompt).unknown:
        shown = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        typer.echo(f"note: the model does not know {shown}, and reads <unk> instead", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the prompt is, whatever the locale
    if as_json:
        for result in model.generate(prompt, **options):
            print(json.dumps(result._asdict(), ensure_ascii=False))
    elif samples == 1:
        ahead = [prompt]  # shown with the first of the text, when all has been checked

        def write(text: str) -> None:
            _show("".join([*ahead, text]))
            ahead.clear()

        [result] = model.generate(prompt, write=write, **options)
        write("" if result.text.endswith("\n") else "\n")
    else:
        parted = lines != 1 and beam is None
        for number, result in enumerate(model.generate(prompt, **options)):
            text = prompt + result.text
            _show(("\n" if number and parted else "") + text + ("" if text.endswith("\n") else "\n"))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _stdin() -> str:
    """All of standard input, without its last line end."""
    from seqtext.data.text import text_lines

    if sys.stdin.isatty():
        typer.echo("type the prompt; Ctrl-D ends it", err=True)
    return "\n".join(line for _, line in text_lines(sys.stdin.buffer, "standard input"))
