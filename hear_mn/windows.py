"""The windows that sounds are embedded by, as in the reference; known without torch."""

SCENE_WINDOW_S = 10.0
SCENE_STEP_S = 2.5
TIMESTAMP_WINDOW_MS = 160
TIMESTAMP_STEP_MS = 50
