"""The quickstarts' detectors and segmentors, narrower and untrained."""

import paddle
import yaml

import ppcls_nextvit as nv

from .paths import NUCLEI, ROOT


def quickstart(folder, name, **arch):
    """(YAML, weights) of a quickstart's network, narrower and untrained."""
    content = yaml.safe_load((ROOT / "configs" / "quickstart" / f"{name}.yaml").read_text())
    content["Arch"].update(arch)
    content["Infer"]["infer_imgs"] = str(NUCLEI / "images" / "validation")
    labels = "instance_labels.txt" if "mask" in name else "labels.txt"
    content["Infer"]["PostProcess"] = {"class_id_map_file": str(NUCLEI / labels)}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    paddle.seed(0)
    settings = dict(content["Arch"])
    network = nv.create_model(
        settings.pop("name"), num_classes=settings.pop("class_num"), **settings
    )
    paddle.save(network.state_dict(), str(folder / f"{name}.pdparams"))
    return path, folder / f"{name}.pdparams"
