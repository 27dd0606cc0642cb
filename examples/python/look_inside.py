"""Looks into what moeprune writes: an observation, a plan and a report.

    python look_inside.py OBSERVATION PLAN REPORT --out DIR

Prints layer by layer which experts stay, which go and how much was routed to them; draws the load of each
expert (DIR/load.svg); exchanges two experts in the plan (DIR/edited-plan.json), for `moeprune apply --plan`.
Nothing of moeprune is needed to read its files: safetensors and json do.

Each `# %%` begins a cell, for editors that run such files as notebooks.
"""

# %% The three files
import argparse
import copy
import json
import sys
from pathlib import Path

from safetensors import SafetensorError, safe_open

# A notebook has a command line of its own; these stand in for ours there.
IN_A_NOTEBOOK = ["nano.obs.safetensors", "plan.json", "pruned/moeprune-report.json", "--out", "look-inside"]

parser = argparse.ArgumentParser(description="Looks into an observation, a plan and a report of moeprune.")
parser.add_argument("observation", type=Path, help="what `moeprune observe` wrote")
parser.add_argument("plan", type=Path, help="what `moeprune plan` made of it")
parser.add_argument("report", type=Path, help="moeprune-report.json of the model that this plan made")
parser.add_argument("--out", type=Path, default=Path("look-inside"), help="folder for results [default: %(default)s]")
arguments = parser.parse_args(IN_A_NOTEBOOK if "ipykernel" in sys.modules else None)


# %% Reading the observation
# A safetensors file: sums over the calibration tokens, and metadata that says of which model and text.
def read_observation(path):
    """Its metadata, and by layer how many tokens the router sent to each expert."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "moeprune-observation" or metadata.get("version") != "1":
                sys.exit(f"{path}: not an observation of version 1, as `moeprune observe` writes it")
            # Layers without a router have no such tensors. Names and meanings of all that is there stand in
            # crates/moeprune-capture/src/observation_file/mod.rs.
            names = set(file.keys())
            all_names = {layer: f"layer.{layer}.routing.counts" for layer in range(int(metadata["layers"]))}
            load = {layer: file.get_tensor(name) for layer, name in all_names.items() if name in names}
    except (OSError, SafetensorError) as error:
        sys.exit(f"{path}: not a safetensors file that can be read: {error}")
    return metadata, load


metadata, load = read_observation(arguments.observation)
for text in json.loads(metadata["corpora"]):
    print(f"observed  {text['samples']} blocks of {text['sequence_len']} tokens of {text['name']}")


# %% Reading the plan and the report
# Both are JSON and have an entry per layer with experts.
def percent(share):
    return f"{100 * share:.1f} %"


def read_json(path, kind, keys, keys_of_layers):
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        sys.exit(f"{path}: cannot be read: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{path}: not JSON: {error}")
    # A plan and a report look alike from afar; the wrong one is better told here than by a missing key below.
    of_kind = isinstance(value, dict) and keys <= value.keys() and isinstance(value["layers"], list)
    if not of_kind or not all(isinstance(x, dict) and keys_of_layers <= x.keys() for x in value["layers"]):
        sys.exit(f"{path}: not a {kind} of moeprune")
    if value["format"] != 1:
        sys.exit(f"{path}: a {kind} of format {value['format']}; this example knows format 1")
    return value


plan = read_json(
    arguments.plan,
    "plan",
    {"format", "model_fingerprint", "recipe", "layers"},
    {"layer", "experts_before", "clusters", "survivors"},
)
report = read_json(
    arguments.report,
    "report",
    {"format", "model", "sparsity", "bytes", "layers"},
    {"index", "kept", "merged", "clusters"},
)

# Each of the three names its model by a fingerprint of several hashes, the first of which decides.
models = {
    arguments.observation: metadata["model_fingerprint"],
    arguments.plan: plan["model_fingerprint"],
    arguments.report: report["model"]["fingerprint"],
}
if len({fingerprint.split("+")[0] for fingerprint in models.values()}) > 1:
    listed = "".join(f"\n  {path}: {fingerprint[:23]}" for path, fingerprint in models.items())
    sys.exit(f"these are not of one model:{listed}")

asked, achieved = report["sparsity"]["requested"], report["sparsity"]["achieved"]
before, after = report["bytes"]["before"], report["bytes"]["after"]
criterion = plan["recipe"].get("experts", {}).get("criterion", "not named")
print(f"planned   criterion {json.dumps(criterion)}, total sparsity {percent(asked)}")
print(f"achieved  {percent(achieved['linears'])} of the decoder Linears, {before / 1e6:.2f} MB -> {after / 1e6:.2f} MB")


# %% What stays and what goes
# `clusters` groups the experts of a layer. Of each cluster one expert stays, its survivor, or the average of all; of a cluster
# whose one expert is in `dropped`, nothing. A plan may leave survivors open: `apply` chooses them, and the report has them.
def survivors_of(layer, reported):
    if layer["survivors"]:
        return layer["survivors"]
    averages = {survivor["source"]: survivor for survivor in reported["merged"]}
    return [averages.get(expert, {"source": expert, "reason": "listed"}) for expert in reported["kept"]]


def experts_of(survivors):
    return [survivor["source"] for survivor in survivors]


def in_order(clusters):
    return sorted(sorted(cluster) for cluster in clusters)


reported = {layer["index"]: layer for layer in report["layers"]}
# Layers behind the decoder's (multi-token prediction) stand elsewhere in a report, and in no observation.
planned = {layer["layer"]: layer for layer in plan["layers"] if layer["layer"] in reported}
survivors = {index: survivors_of(layer, reported[index]) for index, layer in planned.items()}
for index, layer in planned.items():
    same = experts_of(survivors[index]) == reported[index]["kept"]
    if not same or in_order(layer["clusters"]) != in_order(reported[index]["clusters"]):
        sys.exit(f"{arguments.report}: layer {index} is not as {arguments.plan} has it; is it another plan's report?")

for index, layer in planned.items():
    stays = experts_of(survivors[index])
    counts = load.get(index)
    print(f"\nlayer {index}: {len(stays)} of {layer['experts_before']} experts stay")
    if counts is not None and counts.sum() > 0:
        share = counts / counts.sum()
        most, least = share.argmax(), share.argmin()
        print(f"  load   {percent(share[stays].sum())} was routed to them;", end=" ")
        print(f"most to expert {most} ({percent(share[most])}), least to {least} ({percent(share[least])})")
    print("  stays ", *stays)
    goes = []
    for cluster in layer["clusters"]:
        kept = [expert for expert in cluster if expert in stays]
        goes += [f"{expert} (-> {kept[0]})" if kept else f"{expert}" for expert in cluster if expert not in stays]
    print("  goes  ", *goes or ["nothing"])
if any(len(cluster) > 1 for layer in planned.values() for cluster in layer["clusters"]):
    print("\n-> which expert stands in for it, or is its average with others")


# %% Load per expert, as a picture
# Plain SVG, so that nothing more has to be installed: a row of bars per layer, all to one scale.
WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 80, 60, 56, 44
COLOURS = {"stays": "#33658a", "goes": "#f6ae2d"}


def bars(shares, stays, y, most):
    """A layer's bars above the line `y`, their numbers below it, and a line at the share of a router without favourites."""
    step = WIDTH / len(shares)
    for expert, share in enumerate(shares):
        x, height, fate = LEFT + expert * step, HEIGHT * share / most, "stays" if expert in stays else "goes"
        yield f'<rect x="{x:.1f}" y="{y - height:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}" fill="{COLOURS[fate]}">'
        yield f"<title>expert {expert}: {percent(share)} of the load, {fate}</title></rect>"
        if expert % max(1, round(24 / step)) == 0:
            yield f'<text x="{x + step * 0.4:.1f}" y="{y + 14}" text-anchor="middle">{expert}</text>'
    even = y - HEIGHT / len(shares) / most
    yield f'<path d="M{LEFT} {even:.1f}h{WIDTH}" stroke="#555" stroke-dasharray="4 3"/>'
    yield f'<path d="M{LEFT} {y}h{WIDTH}" stroke="#555"/>'
    yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">0</text>'
    yield f'<text x="{LEFT - 6}" y="{y - HEIGHT + 4}" text-anchor="end">{percent(most)}</text>'


def picture(shares, survivors):
    most = max(layer.max() for layer in shares.values())
    height = TOP + len(shares) * (HEIGHT + GAP)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}"'
    yield ' font-family="sans-serif" font-size="11" fill="none"><rect width="100%" height="100%" fill="white"/><g fill="#222">'
    yield f'<text x="{LEFT}" y="20" font-size="14">Share of the routed tokens, by expert (dashed: all experts alike)</text>'
    for place, (fate, colour) in enumerate(COLOURS.items()):
        yield f'<rect x="{LEFT + WIDTH - 120 + 60 * place}" y="11" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{LEFT + WIDTH - 106 + 60 * place}" y="20">{fate}</text>'
    for place, (index, layer) in enumerate(shares.items()):
        y = TOP + HEIGHT + place * (HEIGHT + GAP)
        yield f'<text x="{LEFT}" y="{y - HEIGHT - 8}">layer {index}</text>'
        yield from bars(layer, set(experts_of(survivors[index])), y, most)
    yield "</g></svg>"


try:
    arguments.out.mkdir(parents=True, exist_ok=True)
except OSError as error:
    sys.exit(f"{arguments.out}: no folder for results: {error.strerror}")

shares = {index: load[index] / load[index].sum() for index in planned if index in load and load[index].sum() > 0}
if shares:
    drawn = arguments.out / "load.svg"
    drawn.write_text("\n".join(picture(shares, survivors)) + "\n", encoding="utf-8")
    print(f"\ndrew   {drawn}")
else:
    print("\nno picture: the observation has no load of a layer that the plan is about")


# %% Exchanging two experts
# A plan is made to be edited. Here an expert that goes comes back for one that stays, where that wins the most load. It is an edit
# to look at, not advice: a criterion weighs more than load. As many experts stay as before.
def exchanges(layer, survivors):
    """Pairs of an expert that goes and one that stays which may change places."""
    # An average is of its whole cluster, so no single expert can take its place.
    whole = [survivor["source"] for survivor in survivors if not survivor.get("average_of")]
    alone = [cluster[0] for cluster in layer["clusters"] if len(cluster) == 1]
    for cluster in layer["clusters"]:
        stays = [expert for expert in cluster if expert in whole]
        if len(cluster) > 1:
            # Each cluster has one survivor: the exchange is within the cluster.
            yield from ((goes, stays[0]) for goes in cluster if stays and goes not in stays)
    # An expert that is dropped is alone in its cluster, and so must be the one that is dropped in its place. Where the router has
    # groups, as DeepSeek-V3's, both must also be of one group: a plan does not name the groups, so that is left to `apply`.
    yield from ((goes, stays) for goes in layer.get("dropped", []) for stays in whole if stays in alone)


def exchanged(plan, survivors, index, back, out):
    """The plan in which expert `back` of a layer stays and `out` goes."""
    edited = copy.deepcopy(plan)
    layer = next(layer for layer in edited["layers"] if layer["layer"] == index)
    kept = [survivor for survivor in survivors if survivor["source"] != out]
    # Survivors and dropped experts have to be in ascending order; of the reasons, this one is "named by hand".
    layer["survivors"] = sorted([*kept, {"source": back, "reason": "listed"}], key=lambda survivor: survivor["source"])
    if back in layer.get("dropped", []):
        layer["dropped"] = sorted({*layer["dropped"], out} - {back})
    return edited


possible = [
    (int(load[index][back]) - int(load[index][out]), index, back, out)
    for index, layer in planned.items()
    if index in load
    for back, out in exchanges(layer, survivors[index])
]
if not possible:
    sys.exit("no edited plan: there is no expert that could be exchanged for another")
won, index, back, out = max(possible)
edited = arguments.out / "edited-plan.json"
if edited.exists() and edited.samefile(arguments.plan):
    sys.exit(f"{edited}: is the plan that was read; name another folder with --out")
text = json.dumps(exchanged(plan, survivors[index], index, back, out), indent=2, ensure_ascii=False)
edited.write_text(text + "\n", encoding="utf-8")
print(f"edited {edited}: in layer {index} expert {back} stays and {out} goes ({won:+} routed tokens)")
