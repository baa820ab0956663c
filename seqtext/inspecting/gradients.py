"""How far back a recurrence carries a gradient, and how much its Jacobian stretches or shrinks what passes.

Bengio 1994, "Learning Long-Term Dependencies with Gradient Descent is Difficult", and Pascanu 2013, "On the difficulty
of training recurrent neural networks", eq. 4-7: the loss at step t reaches the state s_(t-k) through the product of k
Jacobians d s_j / d s_(j-1). Where their largest singular values stay below 1 it vanishes, and it can only explode
where they are above 1.

Measured is |d L_t / d s_(t-k)|. L_t stands for what the task's loss sends to the output of step t directly: the loss at
step t of a language model or tagger, and of a classifier the share of this step in the loss of the whole. A state s is
all members of a cell's state together, for an LSTM the output and the memory. In float64, as much vanishes far.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqtext import recipe as recipes
from seqtext import run as runs
from seqtext.config import Config, override, parse
from seqtext.errors import InputError
from seqtext.inspecting.watching import Seen, cells_of, find_cell, kind_of, watching
from seqtext.nn.cells import CELLS, Cell, State
from seqtext.nn.jordan import WordFeedback
from seqtext.nn.rnn import Stack
from seqtext.recipe import Recipe
from seqtext.session import encode

TEXTS = 16
"""The longest texts of the validation split are read, so many."""
CASES = 64
"""Steps t, of all texts together, that a mean is over, at most."""
PRODUCTS = 3
"""Steps t that singular values are a mean over."""
WIDEST = 512
"""Features of a state up to which products of Jacobians are made; beyond, those of a single step."""
FRESH = "rnn:gain=0.8,rnn:gain=2,lstm,gru,lstm:forget_bias=2,gru:update_bias=3"
"""The cells of a recipe, where none are named: what vanishes, what explodes, and the cures, gates as they usually start
and opened. A GRU whose update gate starts half open forgets as fast as a recurrence that shrinks."""


class CellSpec(NamedTuple):
    """A cell to build: its options, and a factor on its recurrent matrices."""

    name: str
    options: dict[str, Any]
    gain: float = 1.0

    @property
    def title(self) -> str:
        given = [f"{key} {value}" for key, value in self.options.items()]
        given += [f"gain {self.gain:g}"] if self.gain != 1.0 else []
        return f"{self.name} ({', '.join(given)})" if given else self.name


@dataclass(frozen=True)
class Carried:
    """What one cell does with a gradient."""

    name: str
    cell: str
    """Where it stands in the module."""
    norms: list[float]
    """(K + 1,) |d L_t / d s_(t-k)| for k = 0 ... K, the mean over steps t and texts."""
    clipped: list[float]
    """The same after the gradient of the parameters was clipped, which scales all of it."""
    singular: list[float]
    """The largest singular value of d s_t / d s_(t-k) for k = 1 ... K, or of k = 1 alone for large states."""
    parameters: float
    """Norm of the gradient of all parameters: of the mean loss over the same texts."""
    limit: float
    """`train.clip`; 0 is none."""
    cases: int
    """Steps t, over all texts."""

    @property
    def clipped_parameters(self) -> float:
        return min(self.parameters, self.limit) if self.limit else self.parameters

    def named(self, name: str) -> Carried:
        """The same under another name."""
        return replace(self, name=name)

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"clipped_parameters": self.clipped_parameters}


def read_cells(text: str, *, gain: float | None = None) -> list[CellSpec]:
    """Cells from `rnn,lstm:forget_bias=2,rnn:nonlinearity=relu:gain=1.5`; `gain` is that of cells which have none.

    Raises `InputError` for a cell that there is not; what options it has, the recipe's own check tells.
    """
    found = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        name, *settings = piece.split(":")
        if name not in CELLS:
            raise InputError(f"--cells {piece}: '{name}' is not one of {', '.join(CELLS)}")
        options: dict[str, Any] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not key or not equals:
                raise InputError(f"--cells {piece}: expected CELL:OPTION=VALUE, got '{setting}'")
            options[key] = _value(value)
        own = options.pop("gain", 1.0 if gain is None else gain)
        if isinstance(own, bool) or not isinstance(own, int | float) or not own > 0.0:
            raise InputError(f"--cells {piece}: a gain is a number above 0, got {own!r}")
        found.append(CellSpec(name, options, float(own)))
    if not found:
        raise InputError("--cells: expected at least one cell, such as rnn,lstm,gru")
    return found


def inspect_gradients(
    target: str,
    *,
    cells: str | None = None,
    gain: float | None = None,
    steps: int = 50,
    at: str | None = None,
    clip: float | None = None,
    data: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    products: bool = True,
) -> list[Carried]:
    """How gradients pass through the cell of a run, or through untrained ones of a recipe, side by side.

    `target` is a run folder or a recipe's name or file. Of a run the trained cell is measured, and beside it `cells`,
    untrained; of a recipe `cells`, or those of `FRESH`. All read the same texts, the longest ones of the validation
    split, in models that differ in nothing else; `at` says which cell of the model, by default the last forward one of
    its first stack. `clip` takes the place of `train.clip`. Without `products` no singular values of more than a step.
    Raises `InputError` for a model without recurrent cells, `DataError` for data that is not there.
    """
    if steps < 1:
        raise InputError(f"--steps {steps}: expected 1 or more")
    if clip is not None and clip < 0:
        raise InputError(f"--max-norm {clip:g}: expected a norm above 0, or 0 for none")
    if gain is not None and not gain > 0.0:
        raise InputError(f"--gain {gain:g}: expected a number above 0")
    specs = [] if cells is None else read_cells(cells, gain=gain)
    trained = _is_run(target)
    if trained:
        if data is not None or overrides:
            raise InputError(f"{target}: a run, which is as it is: no --data and KEY=VALUE beside it")
        run = runs.open_run(target)
        run.check_trainable()
        recipe, task = run.recipe, run.task
    else:
        recipe = recipes.choose(target, data=data, overrides=overrides)
        specs = specs or read_cells(FRESH, gain=gain)
        task = recipe.task.fit(recipe.data, recipe.task.read(recipe.data, "train"))
    if gain is not None and not specs:
        raise InputError(f"--gain {gain:g}: a trained cell is as it is; give --cells as well")
    module = runs.build(task, recipe.model, place=run.folder / "recipe.toml" if trained else target)
    place, cell = find_cell(module, at, where=target)
    _check_carried(recipe.model, place, target)
    batch = _longest(task, recipe, steps)
    limit = recipe.train.clip if clip is None else clip
    found = []
    if trained:
        runs.load_weights(run.folder, module)
        found.append(measure(task, module, batch, f"{kind_of(cell)} (trained)", steps, at, limit, target, products))
    for spec in specs:
        other = _with_cell(recipe, spec, target)
        torch.manual_seed(recipe.seed)
        module = runs.build(task, other.model, place=target)
        _scale(module, spec)
        found.append(measure(task, module, batch, spec.title, steps, at, limit, target, products))
    return found


def measure(
    task: Any,
    module: nn.Module,
    batch: Any,
    name: str,
    steps: int,
    at: str | None = None,
    limit: float = 0.0,
    where: str = "model",
    products: bool = True,
) -> Carried:
    """What the cell `at` of a module does with the gradient of the loss of a batch, up to `steps` back.

    Raises `InputError` where no text is longer than a step, or the loss does not depend on the cell.
    """
    place, cell = find_cell(module, at, where=where)
    module.eval()  # without dropout: the recurrence itself
    module.zero_grad()
    with torch.enable_grad(), watching({place: cell}, gradients=True) as watched:
        loss = task.loss(module, batch)
        if place not in watched:
            raise InputError(f"{where}: the loss does not go through {place}")
        seen = watched[place]
        gradients = torch.autograd.grad(
            loss.total,
            [*seen.pushed, *(part for part in module.parameters() if part.requires_grad)],
            allow_unused=True,
        )
    count = len(seen.pushed)
    direct = torch.cat([_or_zero(one, of) for one, of in zip(gradients[:count], seen.pushed)], dim=1)  # (B, T, H)
    size = sum(float(part.double().square().sum()) for part in gradients[count:] if part is not None) ** 0.5
    size /= max(1, int(loss.count))
    norms, singular, cases = carried_back(cell, seen, direct, steps, where=where, products=products)
    share = min(1.0, limit / size) if limit and size else 1.0
    return Carried(name, place, norms, [norm * share for norm in norms], singular, size, limit, cases)


def carried_back(
    cell: Cell, seen: Seen, direct: Tensor, steps: int, *, where: str = "model", products: bool = True
) -> tuple[list[float], list[float], int]:
    """Norms (K + 1,), singular values (K,) and the number of cases, for `direct` (B, T, H), what each output got."""
    own = copy.deepcopy(cell).double().eval()
    own.requires_grad_(False)
    x, direct = seen.read().double(), direct.double()
    reached = direct.abs().sum(2) > 0  # (B, T)
    if not reached.any():
        raise InputError(f"{where}: no gradient of the loss comes to {kind_of(cell)}")
    time = torch.arange(x.size(1))
    last = torch.where(reached, time, -1).max(1).values  # (B,): the last real step of each text
    back = min(steps, int(last.median()))
    if back < 1:
        raise InputError(f"{where}: the texts are one word long: nothing is carried from step to step")
    rows, ends = torch.nonzero(reached & (time >= back), as_tuple=True)
    chosen = torch.from_numpy(np.unique(np.linspace(0, len(rows) - 1, CASES).astype(int)))
    rows, ends = rows[chosen], ends[chosen]
    with torch.no_grad():
        state: State = tuple(part.double() for part in seen.starts[0])
        states = [state]
        for step in range(x.size(1)):
            _, state = own.step(x[:, step], state)
            states.append(state)
        parts = [torch.stack(list(part), dim=1) for part in zip(*states)]  # (B, T + 1, H): before each step
    begin = ends - back + 1  # the state before it is s_(t-K)

    def trace(which: Tensor, copies: int = 1) -> list[Tensor]:
        """s_(t-K) ... s_t (N, F) of the cases `which`, each as many times as said, with a graph.

        A state is one tensor, so that its members do not depend on each other: an LSTM computes its output from its
        memory, and what comes to the one of them is not to come to the other as well.
        """
        index = which.repeat_interleave(copies)
        found = [torch.cat([part[rows[index], begin[index]] for part in parts], dim=1).requires_grad_()]
        for step in range(back):
            _, now = own.step(x[rows[index], begin[index] + step], found[-1].chunk(own.parts, dim=1))
            found.append(torch.cat(now, dim=1))
        return found

    with torch.enable_grad():
        path = trace(torch.arange(len(rows)))
        pull = (path[-1][:, : cell.hidden_size] * direct[rows, ends]).sum()
        grads = [_or_zero(*pair) for pair in zip(torch.autograd.grad(pull, path, allow_unused=True), path)]
    norms = [float(grad.norm(dim=1).mean()) for grad in reversed(grads)]
    picked = torch.from_numpy(np.unique(np.linspace(0, len(rows) - 1, PRODUCTS).astype(int)))
    size = own.parts * cell.hidden_size
    far = products and size <= WIDEST
    singular = torch.stack([_singular(trace(one.view(1), size), far) for one in picked])
    return norms, singular.mean(0).tolist(), len(rows)


def _singular(path: Sequence[Tensor], far: bool) -> Tensor:
    """(K,) the largest singular values of d s_t / d s_(t-k), or (1,) without `far`.

    The path is that of as many copies of one case as a state has features F: what a backward pass with row i of the
    identity in copy i leaves in s_(t-k) is row i of the Jacobian.
    """
    last, wanted = path[-1], path[-2::-1] if far else path[-2:-1]
    rows = torch.autograd.grad(last, wanted, torch.eye(len(last), dtype=last.dtype), allow_unused=True)
    return largest_singular(torch.stack([_or_zero(*pair) for pair in zip(rows, wanted)]))


def largest_singular(matrices: Tensor) -> Tensor:
    """matrices (K, F, F) -> (K,): the root of the largest eigenvalue of M'M, which takes a third of the time of all."""
    scale = matrices.abs().amax(dim=(1, 2)).clamp(min=torch.finfo(matrices.dtype).tiny)  # squares of tiny ones vanish
    scaled = matrices / scale.view(-1, 1, 1)
    found = torch.linalg.eigvalsh(scaled.transpose(1, 2) @ scaled)[:, -1]
    return found.clamp(min=0.0).sqrt() * scale


def _check_carried(model: Config, place: str, target: str) -> None:
    """Raises `InputError` where the cell's hidden state is not all that goes from step to step (`nn.jordan`)."""
    recurrence, feedback = getattr(model, "recurrence", "hidden"), getattr(model, "feedback", None)
    words = isinstance(feedback, WordFeedback)
    if recurrence == "output" and (words or place.startswith("feedback.")):
        raise InputError(
            f'{target}: with model.recurrence = "output" no hidden state is carried from step to step, so that there '
            'is no gradient to follow; with "hidden" there is'
        )
    if recurrence == "both" and words:
        raise InputError(
            f'{target}: with model.recurrence = "both" a language model\'s gradients go back through the words that '
            'are fed back as well, which is not measured; with "hidden" they are'
        )


def stacks_of(model: Config, prefix: str = "model") -> dict[str, Stack]:
    """The recurrent stacks of a recipe's [model] by dotted key, that of fed back labels where it carries a state."""
    found: dict[str, Stack] = {}
    for name in type(model).model_fields:
        value, key = getattr(model, name), f"{prefix}.{name}"
        if name == "feedback" and getattr(model, "recurrence", "hidden") != "both":
            continue
        if isinstance(value, Stack):
            found[key] = value
        elif isinstance(value, Config) and name not in ("characters", "parser"):
            found |= stacks_of(value, key)
    return found


def _with_cell(recipe: Recipe, spec: CellSpec, target: str) -> Recipe:
    """The recipe with this cell in all its stacks, of the same sizes; options that it does not have are left out."""
    stacks = stacks_of(recipe.model)
    changed: dict[str, Any] = {}
    for key, stack in stacks.items():
        kept = {k: v for k, v in stack.cell_options.items() if k in CELLS[spec.name].Options.model_fields}
        named = "cell" if "cell" in type(stack).model_fields else "name"
        changed[key] = stack.model_dump() | {named: spec.name, "cell_options": kept | spec.options}
    values = {"model": recipe.model.model_dump()}
    source = f"{target} with --cells {spec.name}"
    values = override(values, changed, source=source)
    return replace(recipe, model=parse(type(recipe.model), values["model"], source=source, prefix="model"))


def _scale(module: nn.Module, spec: CellSpec) -> None:
    """Multiply the recurrent matrices by the gain. Raises `InputError` for a cell that has none."""
    if spec.gain == 1.0:
        return
    for cell in cells_of(module).values():
        named = [(name, part) for name, part in cell.named_parameters() if part.dim() == 2]
        recurrent = [part for name, part in named if "weight_hh" in name or "recurrent" in name]
        if not recurrent:
            raise InputError(f"--cells {spec.title}: the cell {spec.name} has no recurrent matrix for a gain to scale")
        for part in recurrent:
            part.data.mul_(spec.gain)


def _longest(task: Any, recipe: Recipe, steps: int) -> Any:
    """A batch of the longest texts of the validation split; of a language model, streams of 2 `steps`."""
    dataset = task.read(recipe.data, "valid")
    data, tokens = recipe.data, 1 << 40
    if "window" in type(data).model_fields:
        task = copy.copy(task)
        task.data = data.model_copy(update={"window": 2 * steps, "random_windows": False})
        tokens = TEXTS * 2 * steps
    else:
        name = next(name for name in ("tokens", "source", "text") if name in dataset.column_names)
        sizes = np.array([len(value) for value in dataset.select_columns([name]).with_format(None)[name]])
        dataset = dataset.select(np.sort(np.argsort(-sizes, kind="stable")[:TEXTS]))
    encoded = encode(task, data, "valid", dataset)
    return next(iter(task.batches(encoded, tokens=tokens, shuffle=np.random.default_rng(recipe.seed))))


def _is_run(target: str) -> bool:
    return Path(target).is_dir()


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _value(text: str) -> Any:
    """A value as TOML has it, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
