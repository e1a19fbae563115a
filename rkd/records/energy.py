"""Energy, where the GPU's driver counts it."""

import torch


def joules(device: torch.device) -> float | None:
    """What the whole card has used since its driver was loaded, in joules; differences of two readings mean something.
    None without CUDA, without the package nvidia-ml-py, or on a card that does not count."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        # By its name: the numbers of CUDA and of the driver differ where CUDA_VISIBLE_DEVICES is set.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(name)) / 1000
    except pynvml.NVMLError:
        return None


class EnergyShares:
    """Divides what a card uses evenly among those who use it together.

    Args:
        device: see `joules`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = joules(device)

    def share(self, members: int) -> float:
        """Joules since the last call (or since the start), over `members`; 0 where nothing is counted."""
        now, before = joules(self._device), self._last
        if now is None or before is None:
            return 0.0
        self._last = now
        return (now - before) / members
