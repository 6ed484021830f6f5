"""How GPUs say that they have too little memory."""

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a GPU had too little memory; its libraries say so in their own ways."""
    said = (
        "out of memory",
        "ALLOC_FAILED",
        "CUBLAS_STATUS_NOT_INITIALIZED",
        "CUFFT_INTERNAL_ERROR",
        "unable to find an engine",
    )
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(s in str(error) for s in said)
