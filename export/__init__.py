"""From a model to a bundle: ONNX graphs, tokenizer, manifest. Installed as `pcaseg.export`."""
