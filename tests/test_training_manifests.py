"""deploy/training: what starts a run under Kubernetes and Slurm, whose commands are run here with
programs that stand for the clusters'.
"""

import os
import subprocess

import pytest
import yaml

from ppcls_nextvit.engine.peers import LOST
from support.paths import ROOT

FOLDER = ROOT / "deploy" / "training"
SERVICE, JOB = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
PADDLEJOB = yaml.safe_load((FOLDER / "paddlejob.yaml").read_text())
PODS = {
    "Job": JOB["spec"]["template"]["spec"],
    "PaddleJob": PADDLEJOB["spec"]["paddleReplicaSpecs"]["Worker"]["template"]["spec"],
}
SAYS = 'echo "$(basename "$0")" "$@" >> "$SAID"\n'
LAUNCH = "python -m paddle.distributed.launch"


@pytest.fixture
def run(tmp_path):
    """Runs a command among programs that are written here; returns the status and what they said,
    a line each.
    """
    programs = {"nextvit": "", "python": SAYS}

    def run(command, environment, **more):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in {**programs, **more}.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}")
            (folder / name).chmod(0o755)
        done = subprocess.run(
            command,
            env={
                "PATH": f"{folder}:{os.environ['PATH']}",
                "SAID": str(tmp_path / "said"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        said = tmp_path / "said"
        return done.returncode, said.read_text().splitlines() if said.exists() else done.stderr

    return run


def containers(pod):
    (container,) = pod["containers"]
    return container


# Kubernetes


@pytest.mark.parametrize("document", [SERVICE, JOB], ids=lambda document: document["kind"])
def test_kubernetes_knows_every_key(document):
    """By the schema of Kubernetes itself, in the oldest and the newest version that the package
    has of those with podFailurePolicy.
    """
    validator = pytest.importorskip("kubernetes_validate")
    for version in ("1.31", validator.latest_version()):
        validator.validate(document, version, strict=True)


@pytest.mark.parametrize("kind", PODS)
def test_pods_have_what_a_run_needs(kind):
    pod = PODS[kind]
    container = containers(pod)
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert mounted["shm"] == "/dev/shm" and "/run-data/run.yaml" in container["args"][0]
    assert pod["terminationGracePeriodSeconds"] >= 60
    (address,) = [one for one in container["env"] if one["name"] == "POD_IP"]
    assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"


def test_the_job_counts_its_machines_once():
    spec = JOB["spec"]
    environment = {one["name"]: one.get("value") for one in containers(PODS["Job"])["env"]}
    assert spec["completions"] == spec["parallelism"] == int(environment["NNODES"])
    name = JOB["metadata"]["name"]
    assert SERVICE["spec"]["selector"] == {"job-name": name} and spec["completionMode"] == "Indexed"
    assert PODS["Job"]["subdomain"] == SERVICE["metadata"]["name"]
    assert environment["MASTER"] == f"{name}-0.{SERVICE['metadata']['name']}"


def test_a_lost_process_starts_the_pods_anew_and_an_error_does_not():
    """podFailurePolicy needs restartPolicy: Never, and names the container."""
    assert PODS["Job"]["restartPolicy"] == "Never"
    actions = {}
    for rule in JOB["spec"]["podFailurePolicy"]["rules"]:
        for status in rule.get("onExitCodes", {}).get("values", []):
            actions[status] = rule["action"]
            assert rule["onExitCodes"]["containerName"] == containers(PODS["Job"])["name"]
    assert actions == {LOST: "Ignore", 1: "FailJob", 2: "FailJob"}


GETENT = """
echo "$1 $2" >> asked
[ "$(wc -l < asked)" -lt 3 ] && exit 2
echo "10.0.0.5 STREAM $2"
echo "10.0.0.5 DGRAM"
"""


@pytest.mark.parametrize("index, tries", [(0, 0), (1, 2)])
def test_a_pod_waits_for_the_first_and_takes_its_address(run, tmp_path, index, tries):
    """Until its name is known, and but for itself until it answers."""
    container = containers(PODS["Job"])
    status, said = run(
        [*container["command"], *container["args"]],
        {"JOB_COMPLETION_INDEX": str(index), "NNODES": "2", "MASTER": "first.service"},
        getent=GETENT,
        timeout='echo "$@" >> tried; [ "$(wc -l < tried)" -ge 2 ]',
        sleep="",
    )
    assert status == 0, said
    (line,) = said
    expected = f"{LAUNCH} --nnodes=2 --master=10.0.0.5:6170 --rank={index} --log_dir=/tmp/log"
    words = f"{expected} {tmp_path / 'bin' / 'nextvit'} train -c /run-data/run.yaml --continue"
    assert line == words
    assert set((tmp_path / "asked").read_text().splitlines()) == {"ahostsv4 first.service"}
    tried = tmp_path / "tried"
    lines = tried.read_text().splitlines() if tried.exists() else []
    assert len(lines) == tries and all("/dev/tcp/10.0.0.5/6170" in line for line in lines)


def test_the_operator_tells_the_launcher_of_a_paddlejob(run, tmp_path):
    """By PADDLE_MASTER, PADDLE_NNODES and POD_IP, which stand in no command."""
    container = containers(PODS["PaddleJob"])
    assert container["name"] == "paddle" and container["ports"][0]["name"] == "master"
    status, said = run([*container["command"], *container["args"]], {})
    nextvit = tmp_path / "bin" / "nextvit"
    expected = f"{LAUNCH} --log_dir=/tmp/log {nextvit} train -c /run-data/run.yaml --continue"
    assert (status, said) == (0, [expected])


# Slurm

SRUN = """
while [ "$1" != bash ]; do shift; done
worst=0
for SLURM_NODEID in 0 1; do
    export SLURM_NODEID
    "$@" || worst=$?
done
exit $worst
"""
SLURM = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123456", "SLURM_NNODES": "2"}
STANDING_FOR_SLURM = {
    "scontrol": f'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; else {SAYS}fi',
    "getent": '[ "$1 $2" = "ahostsv4 node7" ] && echo "10.0.0.5 STREAM node7"',
    "ip": 'echo "10.0.0.5 dev eth0 src 10.0.0.6 uid 0"; echo "    cache"',
    "srun": SRUN,
}
GIVEN = ["my run.yaml", "-o", "Global.epochs=3"]


@pytest.mark.parametrize("count", ["", "4"])
def test_slurm_starts_a_launcher_on_each_node(run, tmp_path, count):
    given = {**SLURM, "NPROC": count} if count else SLURM
    status, said = run(["bash", FOLDER / "slurm.sh", *GIVEN], given, **STANDING_FOR_SLURM)
    assert status == 0, said
    for rank, (line, host) in enumerate(zip(said, ("10.0.0.5", "10.0.0.6"), strict=True)):
        expected = f"{LAUNCH} --nnodes=2 --master=10.0.0.5:23456 --rank={rank} --host={host}"
        expected += f" --job_id=123456 --log_dir=log/123456/{rank}"
        expected += f" --nproc_per_node={count}" if count else ""
        assert line == f"{expected} {tmp_path / 'bin' / 'nextvit'} train --continue -c " + " ".join(
            GIVEN
        )


@pytest.mark.parametrize(
    "status, restarts, again",
    [(LOST, 0, True), (137, 3, True), (247, 0, True), (LOST, 20, False), (1, 0, False)],
)
def test_slurm_begins_anew_after_a_loss_alone(run, status, restarts, again):
    given = {**SLURM, "SLURM_RESTART_COUNT": str(restarts)}
    programs = {**STANDING_FOR_SLURM, "python": f"exit {status}"}
    ended, said = run(["bash", FOLDER / "slurm.sh", *GIVEN], given, **programs)
    assert ended == status
    assert said == (["scontrol requeue 123456"] if again else "")
