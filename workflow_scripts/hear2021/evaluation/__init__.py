"""heareval's protocol on embeddings: training, scores, and its own layout to check with."""
