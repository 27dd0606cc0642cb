"""The other side of `cargo xtask bench-peers --with llm-compressor`: one pruning by llm-compressor.

Arguments: model, calibration file (a JSON object with "tokens" per line), method, share, type, threads, folder to write. Writes
the pruned model to the folder, and beside it `FOLDER.json`: versions, seconds after the imports, and of `reap` the experts that
stay and what each was worth, by layer. With PEER_ALL_EXPERTS=1 in the environment all experts run on all tokens.
"""

import json
import os
import re
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers
from datasets import Dataset
from llmcompressor import __version__ as version
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import (
    REAPPruningModifier,
    SparseGPTModifier,
    WandaPruningModifier,
)
from llmcompressor.modifiers.pruning.reap import utils as reap_utils
from tokenizers import Tokenizer, models

model_folder, calibration, method, share, dtype, threads, out = sys.argv[1:8]
torch.set_num_threads(int(threads))
began, began_cpu = time.perf_counter(), time.process_time()
with open(calibration, encoding="utf-8") as lines:
    rows = [json.loads(line)["tokens"] for line in lines]
model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, dtype))

# Eager attention, which is what llm-compressor's sequential pipeline runs, receives no mask of transformers 5.17 there, so that
# tokens would see those after them. Here they do not.
modeling = sys.modules[type(model).__module__]
attend = modeling.eager_attention_forward


def causal(module, query, key, value, attention_mask, **options):
    """Attention as before, with the mask if it is missing."""
    if attention_mask is None:
        lowest = torch.finfo(query.dtype).min
        attention_mask = torch.full((query.shape[-2], key.shape[-2]), lowest, dtype=query.dtype, device=query.device)
        attention_mask = attention_mask.triu(1 + key.shape[-2] - query.shape[-2])[None, None]
    return attend(module, query, key, value, attention_mask, **options)


modeling.eager_attention_forward = causal

# Texts are tokens already, and a tokenizer is needed all the same.
words = {str(token): token for token in range(model.config.vocab_size)}
processor = transformers.PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")), unk_token="0", pad_token="0"
)
dataset = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})

worth = []
decide = reap_utils.REAPSaliencyTracker.compute_retained_experts


def noting(tracker, *arguments):
    """Decides as before, and keeps what the decision was made by. Layers are decided in order."""
    worth.append(tracker.mean_saliency.tolist())
    return decide(tracker, *arguments)


reap_utils.REAPSaliencyTracker.compute_retained_experts = noting
linears = {"targets": ["Linear"], "ignore": ["re:.*lm_head"], "mask_structure": "0:0"}
if method == "reap":
    recipe = REAPPruningModifier(sparsity=float(share), report_path=out + ".kept.json")
elif method == "wanda":
    recipe = WandaPruningModifier(sparsity=float(share), **linears)
else:
    recipe = SparseGPTModifier(sparsity=float(share), **linears)
oneshot(
    model=model,
    processor=processor,
    dataset=dataset,
    recipe=recipe,
    num_calibration_samples=len(rows),
    max_seq_length=len(rows[0]),
    shuffle_calibration_samples=False,
    # Otherwise experts see the tokens that are routed to them, as here; all tokens is the default, and takes longer.
    moe_calibrate_all_experts=os.environ.get("PEER_ALL_EXPERTS") == "1",
    pipeline="sequential",
)
model.save_pretrained(out)
said = {
    "versions": {
        "llm-compressor": version,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    },
    "wall": time.perf_counter() - began,
    "cpu": time.process_time() - began_cpu,
    "kept": {},
    "worth": {},
}
if method == "reap":
    with open(out + ".kept.json", encoding="utf-8") as file:
        kept = json.load(file)
    number = {name: int(re.search(r"\.(\d+)\.", name).group(1)) for name in kept}
    said["kept"] = {str(number[name]): experts for name, experts in kept.items()}
    said["worth"] = {str(layer): values for layer, values in zip(sorted(number.values()), worth)}
with open(out + ".json", "w", encoding="utf-8") as file:
    json.dump(said, file)
