"""A launch as a Kubernetes JobSet on GKE: a replicated job whose replicas are slices.

A pod's exit code becomes its Job's failure by podFailurePolicy, and the message of that failure
chooses the JobSet's action (failurePolicy, `onJobFailureMessagePatterns`: JobSet 0.10 or newer).
The messages are those of Kubernetes' job controller: "Container NAME for pod ... failed with exit
code 75 matching FailJob rule at index 1", "Pod ... has condition DisruptionTarget matching ...".
All pods of a JobSet are made anew together, after the old ones are gone: they may hold the run.
"""

from typing import Any

import yaml

from lab.core.chips import shape_text
from lab.core.errors import LabError
from lab.launch.gke import ACCELERATOR_LABEL, NAMES, RESOURCE, TOPOLOGY_LABEL
from lab.launch.render_launch import Launch

CONTAINER = "lab"
TPU_PORTS = (8471, 8080)  # libtpu's own between hosts, and between slices
MESSAGE = "failed with exit code ({}) matching FailJob rule"
DISRUPTED = "has condition DisruptionTarget matching FailJob rule"


def render_jobset(launch: Launch) -> str:
    """One YAML document a job; LabError where an image or a topology is missing."""
    if launch.slices is None:
        raise LabError("--topology: is needed by --target jobset, like --topology v5p:4x4x8")
    if not launch.placement.image:
        raise LabError("--image: is needed by --target jobset: the container with this repository")
    documents = [_jobset(launch, name) for name in launch.names()]
    return yaml.safe_dump_all(documents, sort_keys=False, width=100)


def _jobset(launch: Launch, name: str) -> dict[str, Any]:
    placement = launch.placement
    metadata: dict[str, Any] = {
        "name": name,
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    if placement.namespace:
        metadata["namespace"] = placement.namespace
    if placement.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": placement.queue}
    assert launch.slices is not None
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            **({"suspend": True} if placement.queue else {}),  # Kueue admits it
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": _failure_policy(launch),
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": launch.slices.count,
                    "template": {"spec": _job(launch)},
                }
            ],
        },
    }


def _failure_policy(launch: Launch) -> dict[str, Any]:
    def rule(name: str, action: str, *patterns: str) -> dict[str, Any]:
        return {
            "name": name,
            "action": action,
            "onJobFailureReasons": ["PodFailurePolicy"],
            "onJobFailureMessagePatterns": list(patterns),
        }

    never, again = (MESSAGE.format("|".join(map(str, c))) for c in (launch.never, launch.again))
    return {
        "maxRestarts": launch.most_restarts,  # of what no rule matches
        "restartStrategy": "BlockingRecreate",
        "rules": [
            rule("neverAgain", "FailJobSet", never),
            rule("startAgain", "RestartJobSetAndIgnoreMaxRestarts", again, DISRUPTED),
        ],
    }


def _job(launch: Launch) -> dict[str, Any]:
    def on_exit(codes: tuple[int, ...]) -> dict[str, Any]:
        on = {"containerName": CONTAINER, "operator": "In", "values": sorted(codes)}
        return {"action": "FailJob", "onExitCodes": on}

    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "parallelism": launch.hosts,
        "completions": launch.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                on_exit(launch.never),
                on_exit(launch.again),
                {"action": "FailJob", "onPodConditions": [disrupted]},
            ]
        },
        "template": _pod(launch),
    }


def _pod(launch: Launch) -> dict[str, Any]:
    assert launch.slices is not None
    selector = {
        ACCELERATOR_LABEL: NAMES[launch.slices.chip.name].accelerator,
        TOPOLOGY_LABEL: shape_text(launch.slices.shape),
    }
    if launch.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": launch.grace_s,
        "nodeSelector": selector,
        "containers": [_container(launch)],
    }
    if launch.slices.count > 1:  # the network between slices at its full speed
        spec.update({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"})
    if volume := _volume(launch):
        spec["volumes"] = [volume]
    fuse = {"metadata": {"annotations": {"gke-gcsfuse/volumes": "true"}}} if launch.bucket else {}
    return {**fuse, "spec": spec}


def _container(launch: Launch) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": launch.placement.image,
        "command": list(launch.command),
        "env": [{"name": n, "value": value} for n, value in launch.environment],
        "ports": [{"containerPort": port} for port in TPU_PORTS],
        "resources": {"limits": {RESOURCE: launch.chips_per_host}},
    }
    if volume := _volume(launch):
        mount = {"name": volume["name"], "mountPath": launch.mount or launch.workdir}
        container["volumeMounts"] = [mount]
    return container


def _volume(launch: Launch) -> dict[str, Any] | None:
    if launch.bucket:
        csi = {
            "driver": "gcsfuse.csi.storage.gke.io",
            "volumeAttributes": {"bucketName": launch.bucket, "mountOptions": "implicit-dirs"},
        }
        return {"name": "workdir", "csi": csi}
    if launch.nfs:
        server, _, export = launch.nfs.partition(":")
        return {"name": "workdir", "nfs": {"server": server, "path": export}}
    if launch.placement.volume_claim:
        claim = {"claimName": launch.placement.volume_claim}
        return {"name": "workdir", "persistentVolumeClaim": claim}
    return None
