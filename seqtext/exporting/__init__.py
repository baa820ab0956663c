"""Finished runs in other forms, for prediction: weights of fewer bits (`weights`), or an ONNX graph (`onnx`)."""
