#!/usr/bin/env bash
# Holds work that is done in parts under a scheduler to what one process does: starts Slurm with two nodes on this machine, in a
# scratch folder, runs the scripts of scripts/cluster there, kills a part and a node at random moments, submits again, and compares
# bytes with a single run. The same parts under torchrun and Ray, where these are.
#
#     scripts/check-slurm.sh
#
# Slurm comes from the system's packages (Debian: slurmctld slurmd slurm-client munge); where it is missing this says so and ends
# with 0. With CI_INSTALL=1 it is installed by apt-get, as root. MOEPRUNE is the binary to check (default: a release build of this
# checkout), SAMPLES the number of blocks that are observed (default 1024), SEED says at which moments something is killed (default:
# any), TORCHRUN is torchrun (default: the one on the path), RAY_PYTHON a Python with Ray (default: python3). What was started is
# stopped by its process id.
# Takes one to three minutes after the build, and fails if nothing was there to be killed. The exit code is 0 if all holds, 1 if something does not.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
parts=4

packages=(slurmctld slurmd slurm-client munge)
# Daemons are where an ordinary user's path may not lead.
PATH=$PATH:/usr/sbin:/sbin
has_slurm() {
    local program
    for program in slurmctld slurmd sbatch squeue scancel scontrol munged; do
        command -v "$program" >/dev/null || return 1
    done
}
if ! has_slurm && [ "${CI_INSTALL:-}" = 1 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi
if ! has_slurm; then
    [ "${CI_INSTALL:-}" != 1 ] || { echo "Slurm is installed and cannot be found" >&2; exit 1; }
    echo "skipped: no Slurm (Debian: ${packages[*]}; CI_INSTALL=1 installs them)"
    exit 0
fi

if [ -z "${MOEPRUNE:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --locked --bin moeprune
    MOEPRUNE=${CARGO_TARGET_DIR:-$root/target}/release/moeprune
fi
MOEPRUNE=$(realpath "$MOEPRUNE")
RANDOM=${SEED:=$RANDOM}
echo "SEED=$SEED"

scratch=$(mktemp -d)
declare -A daemon=()
stop() {
    local name
    for name in "${!daemon[@]}"; do kill "${daemon[$name]}" 2>/dev/null || true; done
    for name in "${!daemon[@]}"; do wait "${daemon[$name]}" 2>/dev/null || true; done
}
finish() {
    local code=$?
    if [ "$code" != 0 ]; then
        tail -n 20 "$scratch"/log/*.log "$scratch"/*.log 2>/dev/null || true
    fi
    scancel --user "$(id -un)" --quiet 2>/dev/null || true
    stop
    rm -rf "$scratch"
    exit "$code"
}

# ---- Slurm, on this machine alone

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

configure() {
    local host user
    host=$(hostname -s) user=$(id -un)
    mkdir "$scratch/state" "$scratch/log" "$scratch/spool.n1" "$scratch/spool.n2"
    cat >"$scratch/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$scratch/munge.socket
SlurmctldPort=$(free_port)
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool.%n
SlurmctldPidFile=$scratch/ctld.pid
SlurmdPidFile=$scratch/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmctldTimeout=10
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=1:00:00 State=UP
CONF
    # Newer versions want to be told that there are no control groups.
    case $(slurmd -V) in
        *" 2"[0-2].*) ;;
        *) echo "CgroupPlugin=disabled" >"$scratch/cgroup.conf" ;;
    esac
    export SLURM_CONF=$scratch/slurm.conf
}

start_node() {
    slurmd -D -N "$1" -f "$SLURM_CONF" >"$scratch/log/$1.log" 2>&1 &
    daemon[$1]=$!
}

start() {
    dd if=/dev/urandom of="$scratch/munge.key" bs=1024 count=1 status=none
    chmod 600 "$scratch/munge.key"
    munged --foreground --force --key-file="$scratch/munge.key" --socket="$scratch/munge.socket" \
        --pid-file="$scratch/munged.pid" --log-file="$scratch/log/munged.log" --seed-file="$scratch/munged.seed" \
        >/dev/null 2>&1 &
    daemon[munged]=$!
    until_true 20 test -S "$scratch/munge.socket"
    slurmctld -D -f "$SLURM_CONF" >"$scratch/log/slurmctld.log" 2>&1 &
    daemon[slurmctld]=$!
    start_node n1
    start_node n2
    until_true 60 nodes_are_idle
}

nodes_are_idle() { [ "$(sinfo --noheader --format %T --Node 2>/dev/null | sort -u)" = idle ]; }

# Waits at most so many seconds until a command succeeds.
until_true() {
    local seconds=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ $SECONDS -ge $end ]; then
            echo "not so after $seconds s: $*" >&2
            return 1
        fi
        sleep 0.05
    done
}

queue_is_empty() { [ -z "$(squeue --noheader --format %i)" ]; }
# Jobs that wait for a node that is gone are held for two minutes: nothing more comes of them.
nothing_runs() { ! squeue --noheader --format %T --array | grep -qE 'RUNNING|COMPLETING|CONFIGURING'; }
may_still_start() { squeue --noheader --format '%T %r' --array | grep -E '^PENDING' | grep -qvE 'Dependency|BeginTime|DependencyNeverSatisfied'; }
has_come_to_rest() { nothing_runs && ! may_still_start; }

# The processes of the part on a node: Slurm tells each of them where it is, and the program alone is told --part.
part_on() {
    local files
    files=$(grep -lzx "SLURMD_NODENAME=$1" /proc/[0-9]*/environ 2>/dev/null || true)
    # Words on purpose: a list of names.
    # shellcheck disable=SC2086
    [ -z "$files" ] || files=$(grep -lzx -e --part ${files//environ/cmdline} 2>/dev/null || true)
    sed -n 's|^/proc/\([0-9]*\)/cmdline$|\1|p' <<<"$files"
}
one_runs_on() { [ -n "$(part_on "$1")" ]; }
one_runs_or_all_is_done() { one_runs_on "$1" || queue_is_empty; }

# What watches over that part.
steps_on() {
    local process parent
    for process in $(part_on "$1"); do
        parent=$(awk '$1 == "PPid:" { print $2 }' "/proc/$process/status" 2>/dev/null || true)
        [ "$(cat "/proc/${parent:-0}/comm" 2>/dev/null || true)" != slurmstepd ] || echo "$parent"
    done
}

# A random time of at most so many milliseconds.
a_moment() {
    local milliseconds
    printf -v milliseconds %04d $((RANDOM % ($1 + 1)))
    sleep "${milliseconds:0:1}.${milliseconds:1}"
}

kill_now() {
    local process
    for process in "$@"; do kill -9 "$process" 2>/dev/null || true; done
}

# Submits, kills the part on n1 and then all of n2 within so many milliseconds after they were seen at work. What was killed of
# parts is in first and second.
fail_once() {
    local moment=$1
    shift
    until_true 30 nodes_are_idle
    "$@"
    until_true 30 one_runs_or_all_is_done n1
    a_moment "$moment"
    first=$(part_on n1)
    # Words on purpose: a list of numbers.
    # shellcheck disable=SC2086
    kill_now $first
    echo "killed on n1: $(wc -w <<<"$first") processes of a part"
    until_true 30 one_runs_or_all_is_done n2
    a_moment "$moment"
    second=$(part_on n2)
    # shellcheck disable=SC2046,SC2086
    kill_now "${daemon[n2]}" $(steps_on n2) $second
    wait "${daemon[n2]}" 2>/dev/null || true
    echo "killed node n2: its daemon, and $(wc -w <<<"$second") processes of a part"
    until_true 120 has_come_to_rest
    squeue --array --noheader --format '%i %j %T %r' | sort | uniq -c | head -n 8
    scancel --user "$(id -un)" --quiet || true
    start_node n2
    until_true 60 queue_is_empty
    until_true 60 nodes_are_idle
}

# Fails as above, at shorter and shorter moments until a part was killed on both nodes; what was made until then is removed. Then
# submits again.
submit_with_failures() {
    local moment=$1 result=$2 try first second
    shift 2
    for try in 1 2 3 4 5 6; do
        rm -rf "$result" "$result.parts"
        fail_once "$moment" "$@"
        [ -z "$first" ] || [ -z "$second" ] || break
        [ "$try" != 6 ] || { echo "no part could be killed on both nodes: they are done too soon" >&2; return 1; }
        moment=$((moment / 4))
        echo "too late: again, within $moment ms"
    done
    [ ! -e "$result" ] || { echo "$result is there, though a part of it was killed" >&2; return 1; }
    echo "submitted again"
    "$@"
    until_true 300 queue_is_empty
}

# ---- what is compared

# A folder as one stream, and a report without its seconds and memory.
digest() {
    (cd "$1" && find . -type f | sort | while read -r file; do
        echo "$file"
        case $file in
            *report.json) sed -E '/"(seconds|peak_rss_bytes)":/d' "$file" ;;
            *report.md) sed '/^## Steps/,/^## /d' "$file" ;;
            *) cat "$file" ;;
        esac
    done) | sha256sum
}

same() {
    if [ "$1" != "$2" ]; then
        echo "$3: not the bytes of one run" >&2
        return 1
    fi
    echo "$3: the bytes of one run"
}

step() {
    printf '\n== %s\n' "$*"
    local begun=$SECONDS
    "$@"
    printf '== %d s: %s\n' $((SECONDS - begun)) "$*"
}

# A model of many times the layers of another, so that writing it takes long enough to be killed.
deepen() {
    mkdir "$2"
    cp "$1"/*.json "$2"
    python3 - "$1" "$2" "$3" <<'PYTHON'
import json, re, struct, sys

source, target, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = json.load(open(f"{source}/config.json"))
layers = config["num_hidden_layers"]
config["num_hidden_layers"] = layers * times
json.dump(config, open(f"{target}/config.json", "w"))
data = open(f"{source}/model.safetensors", "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header, data, out, at = json.loads(data[8 : 8 + length]), data[8 + length :], {}, 0
pieces = []
for name, tensor in header.items():
    if name == "__metadata__":
        continue
    number = re.match(r"model\.layers\.(\d+)\.", name)
    begin, end = tensor["data_offsets"]
    for time in range(times if number else 1):
        new = f"model.layers.{int(number[1]) + time * layers}.{name[number.end():]}" if number else name
        out[new] = tensor | {"data_offsets": [at, at + end - begin]}
        at += end - begin
        pieces.append((begin, end))
text = json.dumps(out).encode()
text += b" " * (-len(text) % 8)
with open(f"{target}/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for begin, end in pieces:
        file.write(data[begin:end])
PYTHON
}

one_run() {
    "$MOEPRUNE" observe "$model" "${text[@]}" -o one.obs --quiet
    deepen "$model" deep 24
    "$MOEPRUNE" observe deep "${corpus[@]}" --samples 8 -o deep.obs --quiet
    "$MOEPRUNE" plan deep --observation deep.obs --statistics stored -o plan.json --quiet
    "$MOEPRUNE" apply deep one --plan plan.json --observation deep.obs --quiet >/dev/null
}

slurm_observe() {
    submit_with_failures 2000 "$scratch/slurm.obs" "$root/scripts/cluster/observe.sbatch" "$scratch/slurm.obs" "$parts" "$model" "${text[@]}"
    same "$(sha256sum <one.obs)" "$(sha256sum <slurm.obs)" "observation merged of $parts parts"
    grep -q "was observed before" observe-*.log || { echo "no finished part was passed over" >&2; return 1; }
}

slurm_apply() {
    submit_with_failures 400 "$scratch/slurm" "$root/scripts/cluster/apply.sbatch" "$scratch/slurm" "$parts" deep --plan plan.json --observation deep.obs
    same "$(digest one)" "$(digest slurm)" "model joined of $parts parts"
}

# As docs/clusters.md has it.
torchrun_observe() {
    local torchrun=${TORCHRUN:-torchrun}
    if ! command -v "$torchrun" >/dev/null; then
        echo "skipped: no torchrun"
        return
    fi
    mkdir -p torch.parts
    "$torchrun" --standalone --no-python --nproc-per-node=2 bash -c \
        'exec "$MOEPRUNE" observe "$@" --part auto --resume -o "torch.parts/$RANK.safetensors" --quiet' observe "$model" "${text[@]}"
    "$MOEPRUNE" merge torch.parts/*.safetensors -o torch.obs
    same "$(sha256sum <one.obs)" "$(sha256sum <torch.obs)" "observation of torchrun, 2 parts"
}

ray_observe() {
    local python=${RAY_PYTHON:-python3}
    if ! "$python" -c 'import ray' 2>/dev/null; then
        echo "skipped: no Python with Ray"
        return
    fi
    "$python" "$root/scripts/cluster/observe_ray.py" "$scratch/ray.obs" 3 "$model" "${text[@]}"
    same "$(sha256sum <one.obs)" "$(sha256sum <ray.obs)" "observation of Ray, 3 parts"
}

trap finish EXIT
export MOEPRUNE
cd "$scratch"
model=$root/assets/nano
corpus=(--calibration "$root/assets/nano/data/calibration.jsonl" --seq-len 256)
text=("${corpus[@]}" --samples "${SAMPLES:-1024}")
configure
step start
step one_run
step slurm_observe
step slurm_apply
step torchrun_observe
step ray_observe
