"""Energy, where the GPU's driver counts it."""

import torch


def joules(device: torch.device) -> float:
    """What the whole card has used since its driver was loaded, in joules; differences of two readings mean something.
    Always 0 without CUDA, without the package nvidia-ml-py, or on a card that does not count."""
    if device.type != "cuda":
        return 0.0
    try:
        import pynvml
    except ModuleNotFoundError:
        return 0.0
    try:
        pynvml.nvmlInit()
        # By its name: the numbers of CUDA and of the driver differ where CUDA_VISIBLE_DEVICES is set.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name)) / 1000
    except pynvml.NVMLError:
        return 0.0
