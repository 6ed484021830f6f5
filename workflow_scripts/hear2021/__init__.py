"""The HEAR 2021 benchmark: tasks, embeddings, heareval's protocol, tables and figures."""
