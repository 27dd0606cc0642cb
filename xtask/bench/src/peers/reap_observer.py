"""The other side of `cargo xtask bench-peers --with reap`: one pruning by what the authors of REAP published.

Arguments: model, calibration file (a JSON object with "tokens" per line), method, share, type, threads, folder to write; the
checkout's `src` is on Python's path. The model is watched by the checkout's observer. Experts are cut here, since the module that
cuts them imports what evaluates models (vLLM and others). Writes the pruned model to the folder, and beside it `FOLDER.json`.
"""

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers
from reap.observer import OBSERVER_CONFIG_REGISTRY, MoETransformerObserver

model_folder, calibration, method, share, dtype, threads, out = sys.argv[1:8]
if method != "reap":
    sys.exit("the authors of REAP published REAP")
torch.set_num_threads(int(threads))
began, began_cpu = time.perf_counter(), time.process_time()
with open(calibration, encoding="utf-8") as lines:
    rows = [json.loads(line)["tokens"] for line in lines]
model = transformers.AutoModelForCausalLM.from_pretrained(
    model_folder, torch_dtype=getattr(torch, dtype)
)
settings = OBSERVER_CONFIG_REGISTRY[type(model).__name__](
    renormalize_router_weights=getattr(model.config, "norm_topk_prob", True),
    record_pruning_metrics_only=True,
)
observer = MoETransformerObserver(model, settings)
with torch.no_grad():
    for row in rows:
        model(torch.tensor([row]))
worth = {layer: state["reap"] for layer, state in observer.report_state().items()}
for hook in observer.hooks:
    hook.remove()
kept = {}
for layer, values in worth.items():
    gone = torch.topk(values, int(len(values) * float(share)), largest=False).indices.tolist()
    kept[layer] = [expert for expert in range(len(values)) if expert not in gone]
    block = model.model.layers[layer]
    block = getattr(block, "mlp", None) or block.block_sparse_moe
    block.experts = torch.nn.ModuleList(block.experts[expert] for expert in kept[layer])
    block.gate.weight = torch.nn.Parameter(block.gate.weight[kept[layer]], requires_grad=False)
    block.gate.out_features = len(kept[layer])
key = "num_experts" if hasattr(model.config, "num_experts") else "num_local_experts"
setattr(model.config, key, len(next(iter(kept.values()))))
model.save_pretrained(out)
said = {
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    "wall": time.perf_counter() - began,
    "cpu": time.process_time() - began_cpu,
    "kept": {str(layer): experts for layer, experts in kept.items()},
    "worth": {str(layer): values.tolist() for layer, values in worth.items()},
}
with open(out + ".json", "w", encoding="utf-8") as file:
    json.dump(said, file)
