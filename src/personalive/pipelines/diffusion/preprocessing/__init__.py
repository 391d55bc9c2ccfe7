"""The inputs of the networks, made from references and driving frames: pixels, crops, keypoints, pose images."""
