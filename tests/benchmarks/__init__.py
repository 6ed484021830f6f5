"""What the pipeline costs, measured beside the stock tools: `python -m tests.benchmarks`.

docs/benchmarks.md says what each part measures and what it last gave.
"""
