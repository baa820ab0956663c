"""[train] of every recipe: batches, optimizer, schedule, averaging, stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from seqtext.config import Config


class Sgd(Config):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0)
    """Learning rate."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the last update that carries on."""
    nesterov: bool = False
    """Look ahead along the momentum."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """L2 penalty."""


class Adam(Config):
    """Adam (Kingma & Ba 2015)."""

    name: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0.0)
    """Learning rate."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the gradient's mean."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the gradient's mean square."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """L2 penalty."""


class AdamW(Config):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0.0)
    """Learning rate."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the gradient's mean."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the gradient's mean square."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Share of the learning rate by which weights shrink a step."""


class Asgd(Config):
    """Gradient descent whose weights, from step `start` on, are averaged for evaluation (Polyak & Juditsky 1992)."""

    name: Literal["asgd"] = "asgd"
    lr: float = Field(default=0.1, gt=0.0)
    """Learning rate."""
    start: int = Field(default=0, ge=0)
    """Step from which the average counts, where there is no trigger."""
    trigger: int = Field(default=0, ge=0)
    """If not 0, averaging begins when an evaluation is worse than the best of all but the last `trigger` ones
    (NT-ASGD: Merity 2018, algorithm 1)."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """L2 penalty."""


class Ridge(Config):
    """Ridge regression: the read-out of an echo state network in closed form, after one pass (Jaeger 2001; Lukosevicius
    2012, section 4.1)."""

    name: Literal["ridge"] = "ridge"
    penalty: float = Field(default=1.0, gt=0.0)
    """Weight of the summed squares of the read-out's weights, beside the squared errors summed over all targets."""
    floor: float = Field(default=0.1, gt=0.0, le=1.0)
    """Share of a class's frequency in training that its estimated probability is raised to, where it is below."""


class Constant(Config):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""


class Plateau(Config):
    """The rate falls by `factor` when the goal has not improved for more than `patience` evaluations."""

    name: Literal["plateau"] = "plateau"
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""
    factor: float = Field(default=0.5, gt=0.0, lt=1.0)
    """What the rate is multiplied by."""
    patience: int = Field(default=3, ge=0)
    """Evaluations without improvement that are put up with."""


class Linear(Config):
    """The rate falls in a straight line, from the warm-up's end to `floor` times itself when training ends."""

    name: Literal["linear"] = "linear"
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the rate that is left at the end."""


class Cosine(Config):
    """The rate falls along half a cosine, from the warm-up's end to `floor` times itself when training ends."""

    name: Literal["cosine"] = "cosine"
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the rate that is left at the end."""


class Decay(Config):
    """The rate stays for `after` epochs and is then multiplied by `factor` before every epoch (Zaremba 2014)."""

    name: Literal["decay"] = "decay"
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate rises from zero."""
    factor: float = Field(default=0.5, gt=0.0, lt=1.0)
    """What the rate is multiplied by."""
    after: int = Field(default=4, ge=0)
    """Epochs at the full rate."""


class InverseSqrt(Config):
    """The rate falls with the square root of the step after the warm-up (Vaswani 2017, eq. 3)."""

    name: Literal["inverse-sqrt"] = "inverse-sqrt"
    warmup: int = Field(default=1000, ge=1)
    """Steps over which the rate rises from zero."""


class NoAverage(Config):
    """The weights themselves are evaluated and saved."""

    name: Literal["none"] = "none"


class Exponential(Config):
    """An exponential moving average of the weights is evaluated and saved."""

    name: Literal["exponential"] = "exponential"
    decay: float = Field(default=0.999, gt=0.0, lt=1.0)
    """Share of the average that a step keeps; early on less, so that the first weights are soon forgotten."""


class Uniform(Config):
    """The plain mean of the weights of all steps from epoch `start` on is evaluated and saved."""

    name: Literal["uniform"] = "uniform"
    start: int = Field(default=1, ge=1)
    """The epoch, counted from 1, from which weights are averaged."""


class TrainConfig(Config):
    """How a model is trained."""

    epochs: int = Field(default=50, ge=1)
    """Passes over the training data, at most."""
    batch_tokens: int = Field(default=1024, ge=1)
    """Padded tokens of a batch, at most; a longer example is a batch of its own."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients make one step, as if they were one batch."""
    eval_batch_tokens: int = Field(default=8192, ge=1)
    """Padded tokens of a batch in evaluation and prediction."""
    optimizer: Sgd | Adam | AdamW | Asgd | Ridge = Field(default=Adam(), discriminator="name")
    """What turns gradients into updates; `ridge` needs none, and solves for the read-out of an echo state network."""
    schedule: Constant | Plateau | Decay | Linear | Cosine | InverseSqrt = Field(
        default=Constant(), discriminator="name"
    )
    """How the learning rate changes."""
    average: NoAverage | Exponential | Uniform = Field(default=NoAverage(), discriminator="name")
    """Which weights are evaluated and saved."""
    clip: float = Field(default=5.0, ge=0.0)
    """Largest norm of the gradient; 0 leaves it as it is."""
    patience: int = Field(default=0, ge=0)
    """Evaluations without improvement after which training stops; 0 never stops early."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """Numbers of the forward pass; weights stay float32. With auto, bf16 where it is measured to be clearly faster on
    the machine: runs on different machines are then equal up to the noise between seeds."""
    graphs: bool = False
    """On a GPU, record what many small steps ask it for, and ask that in one call (CUDA graphs): loops of cells without
    a kernel, conditional random fields, levels of trees, and in prediction the steps of searches. What is drawn for
    dropout within these, and how sums are rounded, is not what it is without."""
    log_every: int = Field(default=50, ge=1)
    """Steps between two reports of the training loss; on a GPU, the only ones that wait for it."""
    checkpoint_every: int = Field(default=500, ge=0)
    """Steps between two checkpoints within an epoch; 0 leaves only those at the ends of epochs."""
    init_from: str | None = None
    """The run folder of a language model (task lm) whose embedding and recurrent layers training starts from."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """What the learning rate is multiplied by, once more for each layer below the last (Howard & Ruder 2018, section
    3.2, who take 1/2.6)."""
    unfreeze: int = Field(default=0, ge=0)
    """If not 0, only the last layer is trained at first, and after every `unfreeze` epochs one more below it (Howard &
    Ruder 2018, section 3.3, with 1). Needs `init_from`."""

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if isinstance(self.optimizer, Asgd) and not isinstance(self.average, NoAverage):
            raise ValueError(
                f"the optimizer asgd averages the weights itself; average '{self.average.name}' would replace that: "
                "use sgd with it, or leave the average out"
            )
        return self

    @model_validator(mode="after")
    def _one_pass(self) -> TrainConfig:
        if isinstance(self.optimizer, Ridge):
            wanted = {"epochs": 1, "accumulate": 1, "patience": 0, "layer_decay": 1.0, "unfreeze": 0, "init_from": None}
            faults = [f"{key} = {value}" for key, value in wanted.items() if getattr(self, key) != value]
            faults += [] if self.schedule == Constant() else ['schedule.name = "constant"']
            faults += [] if isinstance(self.average, NoAverage) else ['average.name = "none"']
            if faults:
                told = ", ".join(fault.replace("init_from = None", "no init_from") for fault in faults)
                raise ValueError(f"the optimizer ridge takes no steps, and solves after one pass: set {told}")
        return self

    @model_validator(mode="after")
    def _no_random_layer_is_frozen(self) -> TrainConfig:
        if self.unfreeze and self.init_from is None:
            raise ValueError(f"unfreeze = {self.unfreeze} needs init_from: without it, random layers would be frozen")
        return self

    def absolute(self) -> Self:
        """A copy whose path holds from any folder: what a run keeps."""
        if self.init_from is None:
            return self
        return self.model_copy(update={"init_from": str(Path(self.init_from).expanduser().absolute())})
