"""What a model of end-to-end verification is, in names and values."""

from voxark.nnet.layers import FrozenNorm


def describe(model):
    """A dict: architecture, dimensions, number of parameters by part, normalisation layers."""
    extractor, config = model.extractor, model.config
    norms = [module for module in extractor.modules() if isinstance(module, FrozenNorm)]
    about = {
        "arch": extractor.arch,
        "input": "samples" if extractor.takes_samples else "features",
        "input_dim": extractor.input_dim,
        "sample_frequency": config["features"].get("sample_frequency"),
        "embedding_dim": extractor.embedding_dim,
        "min_frames": extractor.min_frames,
        "max_frames": extractor.max_frames,
        "cmn": model.cmn,
        "cmn_window": model.cmn_window if model.cmn == "sliding" else None,
        "norm_layers": len(norms),
        "norm_layers_estimated": sum(bool(module.estimated) for module in norms),
        "backend": (config.get("scorer") or {}).get("kind"),
        "speakers": (config.get("head") or {}).get("num_speakers"),
    }
    parts = model.parameters_by_part()
    about.update({f"{name}_parameters": number for name, number in parts.items()})
    about["parameters"] = sum(parts.values())
    about["option"] = [{"name": name, "value": value} for name, value in config["arch_options"].items()]
    return about
