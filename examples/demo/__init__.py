"""`make demo`: the main job on one machine with a real model, in two acts."""
