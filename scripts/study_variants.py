"""The variants of `study_cells.py`: what each changes of the layer that a recipe of the study has.

`cell` is a key of `CELLS`, `options` are its own, `multiple` is what its hidden size must be a multiple of, and all
else are keys of the stack ([model.encoder]). Cells that are trained by a scan have two layers, as their papers do: the
gates of a single one read the input alone. What the cells of this version lack is left out of a study, and said.
"""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "rnn, relu from identity": {"cell": "rnn", "options": {"nonlinearity": "relu", "initial": "identity"}},
    "rnn, leak 0.3": {"cell": "rnn", "options": {"leak": 0.3}},
    "lstm, forget bias 0": {"cell": "lstm", "options": {"forget_bias": 0.0}},
    "lstm, forget bias 2": {"cell": "lstm", "options": {"forget_bias": 2.0}},
    "lstm, output bias 1": {"cell": "lstm", "options": {"output_bias": 1.0}},
    "lstm, no input gate": {"cell": "lstm", "options": {"without": ["input"]}},
    "lstm, no forget gate": {"cell": "lstm", "options": {"without": ["forget"]}},
    "lstm, no output gate": {"cell": "lstm", "options": {"without": ["output"]}},
    "lstm, peepholes": {"cell": "lstm", "options": {"peepholes": True}},
    "lstm, coupled gates": {"cell": "lstm", "options": {"coupled": True}},
    "lstm, zoneout 0.1": {"cell": "lstm", "options": {"zoneout": 0.1}},
    "mut1": {"cell": "mut1"},
    "mut2": {"cell": "mut2"},
    "mut3": {"cell": "mut3"},
    "lnlstm": {"cell": "lnlstm"},
    "lngru": {"cell": "lngru"},
    "mogrifier": {"cell": "mogrifier"},
    "mingru, 2 layers": {"cell": "mingru", "layers": 2},
    "minlstm, 2 layers": {"cell": "minlstm", "layers": 2},
    "sru, 2 layers": {"cell": "sru", "layers": 2},
    "clockwork": {"cell": "clockwork", "multiple": 4},
    "lstm, 2 layers": {"cell": "lstm", "layers": 2},
    "lstm, 2 layers, dilated 1 and 4": {"cell": "lstm", "layers": 2, "dilation": [1, 4]},
    "gru, transitions 2 deep": {"cell": "gru", "transition_depth": 2},
}
BASE = "lstm"
"""What the budget of weights and the speed are held to: the layer as the recipe has it."""
GATES = ("forget", "input", "output")
"""In the order of importance that Jozefowicz 2015 found."""
CLOSE = 0.02
"""How far from the budget the recurrent weights may be; where no hidden size comes nearer, the table says how far."""
