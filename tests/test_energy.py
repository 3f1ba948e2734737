"""Energy counters, with a package that stands for NVML's."""

from __future__ import annotations

import pytest

from selfdev.workers.energy import meter, meter_of


class Nvml:
    """Two GPUs; the second has no counter when `old`."""

    class NVMLError(Exception):
        """As in the real package."""

    def __init__(self, old: bool = False, driver: bool = True) -> None:
        self.old, self.driver = old, driver
        self.used = {0: 5000, 1: 70000}  # millijoules

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-b": 1}[uuid]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if self.old:
            raise self.NVMLError
        return self.used[handle]


@pytest.mark.parametrize(("gpus", "joules"), [(("0",), 5.0), (("0", "1"), 75.0), (("GPU-b",), 70.0)])
def test_the_counters_of_the_gpus_in_use_are_added_up(gpus: tuple[str, ...], joules: float) -> None:
    assert meter_of(gpus, Nvml())() == joules


@pytest.mark.parametrize("nvml", [Nvml(old=True), Nvml(driver=False)])
def test_without_a_counter_nothing_is_said(nvml: Nvml) -> None:
    assert meter_of(("0",), nvml)() is None


def test_no_gpu_uses_no_energy_that_is_known() -> None:
    assert meter(())() is None
    assert meter_of((), Nvml())() is None
