"""TensorRT engines of a bundle: graphs for its parser, the builder, the engine cache, and the proof of precision."""
