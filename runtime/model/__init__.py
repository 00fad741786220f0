"""Models: preprocessing, prompts, positions, sessions, and the embedder and reranker made of them."""
