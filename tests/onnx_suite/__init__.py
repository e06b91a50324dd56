"""ONNX's backend tests of single nodes, run through cnnkern's ops."""
