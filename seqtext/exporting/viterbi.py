"""The best labels of an ONNX graph's logits, as part of the graph: what `nn.crf_decode.viterbi` does, by two scans.

From the end, ahead_t[i] is the best score of the labels after position t, given label i there:

    reached_t = x_t + ahead_t        ahead_{t-1}[i] = max_j transitions[i, j] + reached_t[j]        ahead_{n-1} = end

and the labels are then read off from the start. Padding leaves `ahead` at `end`; all is float64, as it is there, and of
equal paths it finds the same. B batch, T time, C labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqtext.nn.crf import CRF

LABELS = "labels"


def add_labels(model: Any, crf: CRF | None) -> None:
    """Give a graph with the output `logits` (B,T,C) and the input `lengths` (B,) the output `labels` (B,T), -1 in the
    padding: the best path of `crf`, or, without one, the best label of each word."""
    from onnx import TensorProto, helper

    graph = model.graph
    _constants(graph, {"_zero": np.int64(0), "_one": np.int64(1), "_ones": np.array([1]), "_none": np.int64(-1)})
    nodes = [
        helper.make_node("Shape", ["logits"], ["_shape"]),
        helper.make_node("Gather", ["_shape", "_one"], ["_time"]),
        helper.make_node("Range", ["_zero", "_time", "_one"], ["_steps"]),
        helper.make_node("Unsqueeze", ["lengths", "_ones"], ["_ends"]),
        helper.make_node("Less", ["_steps", "_ends"], ["_real"]),  # (B,T)
    ]
    if crf is None:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["_best"], axis=2, keepdims=0))
    else:
        nodes += _paths(graph, crf)
    nodes.append(helper.make_node("Where", ["_real", "_best", "_none"], [LABELS]))
    graph.node.extend(nodes)
    graph.output.append(helper.make_tensor_value_info(LABELS, TensorProto.INT64, ["batch", "time"]))


def _paths(graph: Any, crf: CRF) -> list[Any]:
    """The nodes from `logits` and `_real` to `_best`."""
    from onnx import TensorProto, helper

    start, transitions, end = (tensor.detach().numpy() for tensor in crf.constrained())
    size = len(start)
    _constants(graph, {"_start": start, "_end": end, "_rows": np.array([0]), "_last": np.array([2])})
    _constants(graph, {"_beyond": np.array([np.iinfo(np.int64).max])})

    def info(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    double, whole, truth = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL
    search = helper.make_graph(
        [
            helper.make_node("Add", ["x", "ahead"], ["found"]),
            helper.make_node("Unsqueeze", ["found", "axis"], ["wide"]),  # (B,1,C): label j of this position
            helper.make_node("Add", ["wide", "transitions"], ["joined"]),  # (B,C,C): after label i of the one before
            helper.make_node("ReduceMax", ["joined", "last"], ["most"], keepdims=0),
            helper.make_node("ArgMax", ["joined"], ["next"], axis=2, keepdims=0),
            helper.make_node("Where", ["real", "most", "ahead"], ["ahead_on"]),
            helper.make_node("Where", ["real", "found", "reached"], ["reached_on"]),
        ],
        "search",
        [
            info("ahead", double, ["batch", size]),
            info("reached", double, ["batch", size]),
            info("x", double, ["batch", size]),
            info("real", truth, ["batch", 1]),
        ],
        [
            info("ahead_on", double, ["batch", size]),
            info("reached_on", double, ["batch", size]),
            info("next", whole, ["batch", size]),
        ],
    )
    _constants(search, {"axis": np.array([1]), "last": np.array([2]), "transitions": transitions[None]})
    follow = helper.make_graph(
        [
            helper.make_node("GatherElements", ["moves", "label"], ["label_on"], axis=1),
            helper.make_node("Identity", ["label"], ["label_out"]),
        ],
        "follow",
        [info("label", whole, ["batch", 1]), info("moves", whole, ["batch", size])],
        [info("label_on", whole, ["batch", 1]), info("label_out", whole, ["batch", 1])],
    )
    return [
        helper.make_node("Cast", ["logits"], ["_wider"], to=double),
        helper.make_node("Transpose", ["_wider"], ["_x"], perm=[1, 0, 2]),  # (T,B,C)
        helper.make_node("Transpose", ["_real"], ["_turned"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["_turned", "_last"], ["_mask"]),  # (T,B,1)
        helper.make_node("Gather", ["_x", "_zero"], ["_like"], axis=0),  # (B,C)
        helper.make_node("Shape", ["_like"], ["_rows_and_labels"]),
        helper.make_node("Expand", ["_end", "_rows_and_labels"], ["_ahead"]),
        helper.make_node(
            "Scan",
            ["_ahead", "_ahead", "_x", "_mask"],
            ["_before", "_reached", "_next"],
            body=search,
            num_scan_inputs=2,
            scan_input_directions=[1, 1],
            scan_output_directions=[1],
        ),
        helper.make_node("Add", ["_reached", "_start"], ["_total"]),
        helper.make_node("ArgMax", ["_total"], ["_first"], axis=1, keepdims=1),  # (B,1)
        # A step hands out its label and then moves on, by the moves to the position after it.
        helper.make_node("Slice", ["_next", "_ones", "_beyond", "_rows"], ["_later"]),
        helper.make_node("Slice", ["_next", "_rows", "_ones", "_rows"], ["_unused"]),
        helper.make_node("Concat", ["_later", "_unused"], ["_moves"], axis=0),  # (T,B,C)
        helper.make_node(
            "Scan", ["_first", "_moves"], ["_end_label", "_path"], body=follow, num_scan_inputs=1
        ),  # (T,B,1)
        helper.make_node("Squeeze", ["_path", "_last"], ["_flat"]),
        helper.make_node("Transpose", ["_flat"], ["_best"], perm=[1, 0]),
    ]


def _constants(graph: Any, values: dict[str, Any]) -> None:
    from onnx import numpy_helper

    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
