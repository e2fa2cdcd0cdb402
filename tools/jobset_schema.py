"""Write tests/launch/jobset_schema.json: what is a JobSet; unknown fields are refused.

    python -m venv .cache/schema && .cache/schema/bin/pip install kubeflow-trainer-api==2.3.0
    .cache/schema/bin/python tools/jobset_schema.py > tests/launch/jobset_schema.json

That package (Apache-2.0) has models that were generated from the OpenAPI of JobSet v1alpha2 and of
Kubernetes; the JobSet project's CRD (Apache-2.0) has the enumerations that they leave out.
"""

import json
from typing import Any

ENUMS = {  # model and field: allowed values, from the markers of the CRD and of Kubernetes' API
    ("JobsetV1alpha2FailurePolicyRule", "action"): (
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
    ),
    ("JobsetV1alpha2FailurePolicy", "restartStrategy"): (
        "Recreate",
        "BlockingRecreate",
        "InPlaceRestart",
    ),
    ("IoK8sApiBatchV1JobSpec", "completionMode"): ("NonIndexed", "Indexed"),
    ("IoK8sApiBatchV1PodFailurePolicyRule", "action"): ("Count", "FailIndex", "FailJob", "Ignore"),
    ("IoK8sApiBatchV1PodFailurePolicyOnExitCodesRequirement", "operator"): ("In", "NotIn"),
    ("IoK8sApiCoreV1PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("IoK8sApiCoreV1PodSpec", "dnsPolicy"): (
        "ClusterFirst",
        "ClusterFirstWithHostNet",
        "Default",
        "None",
    ),
}
COMMENT = (
    "JobSet v1alpha2 (kubernetes-sigs/jobset, Apache-2.0) by way of the models of "
    "kubeflow-trainer-api 2.3.0 (Apache-2.0); made by tools/jobset_schema.py"
)
WORDS = ("description", "title", "default")


def strict(node: Any) -> Any:
    """Without words and nulls, and closed to fields that are not named."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        rest = [option for option in node["anyOf"] if option != {"type": "null"}]
        return strict(rest[0]) if len(rest) == 1 else {"anyOf": [strict(one) for one in rest]}
    kept = {
        key: strict(value)
        for key, value in node.items()
        if key not in WORDS or isinstance(value, dict)
    }
    if isinstance(kept.get("properties"), dict) and kept.get("type") == "object":
        kept["additionalProperties"] = False
    return kept


def main() -> None:
    """Print the schema."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import (  # pyrefly: ignore[missing-import]
        JobsetV1alpha2JobSet,
    )

    schema = strict(JobsetV1alpha2JobSet.model_json_schema(by_alias=True))
    for (model, field), allowed in ENUMS.items():
        assert schema["$defs"][model]["properties"][field]["type"] == "string"
        schema["$defs"][model]["properties"][field]["enum"] = list(allowed)
    # Numbers and text as a quantity, and as a port: a union that a model cannot show.
    schema["$defs"]["IoK8sApimachineryPkgApiResourceQuantity"] = {"type": ["string", "number"]}
    schema["$defs"]["IoK8sApimachineryPkgUtilIntstrIntOrString"] = {"type": ["string", "integer"]}
    schema["properties"]["apiVersion"]["const"] = "jobset.x-k8s.io/v1alpha2"
    schema["properties"]["kind"]["const"] = "JobSet"
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    print(json.dumps({"$comment": COMMENT, **schema}, separators=(",", ":"), sort_keys=True))


if __name__ == "__main__":
    main()
