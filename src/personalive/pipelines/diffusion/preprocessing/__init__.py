"""What a reference and a driving frame become before networks see them: pixels, crops, keypoints and pose images."""
