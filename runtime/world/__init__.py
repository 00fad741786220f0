"""The sample world: rendered scenes with an exact relevance function.

A scene is 17 integers. The same vector gives a picture or a clip, captions and queries, and the answer to
"does this query match this scene?", so every figure measured on it has exact labels. It knows nothing of
models or libraries.
"""
