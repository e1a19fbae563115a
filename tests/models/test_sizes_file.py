"""`rkd models` lists the sizes kept in a file, without importing torch: they are those of the networks."""

import csv
import subprocess
import sys
from importlib import resources

import torch

from rkd import models


def measured():
    """A row per registered network: parameters and multiply-adds without the classifier, whose inputs are `width`."""
    for group, names in models.groups().items():
        for name in names:
            with torch.device("meta"):
                net = models.build(name, 10)
            width = models.tap_shapes(net).pooled
            row = {"group": group, "name": name, "width": width}
            forms = {"": name} | (
                {"merged_": models.deploy_name(name)} if models.is_reparameterised(net) else {}
            )
            for form in ("", "merged_"):
                row |= {f"{form}parameters": "", f"{form}multiply_adds": ""}
                if form in forms:
                    with torch.device("meta"):
                        net = models.build(forms[form], 10)
                    row[f"{form}parameters"] = models.parameter_count(net) - 10 * (width + 1)
                    row[f"{form}multiply_adds"] = models.macs(net) - 10 * width
            yield {key: str(value) for key, value in row.items()}


def test_the_file_holds_the_sizes_of_all_networks():
    kept = {r["name"]: r for r in csv.DictReader(resources.files("rkd").joinpath("models/sizes.csv").open())}
    found = {r["name"]: r for r in measured() if r["group"] != "own"}
    assert kept == found


def test_the_list_does_without_torch():
    call = "import sys; from rkd.cli import main; main(['models', '--classes', '10']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    net = models.build("represnet20", 10)
    assert out.endswith("False\n") and f"{models.parameter_count(net):,}" in out
    assert f"merged:{models.parameter_count(models.deploy(net)):>12,}" in out
