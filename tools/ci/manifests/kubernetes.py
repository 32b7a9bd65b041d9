"""Kubernetes manifests: each against the schema of its kind, strictly, and against each other.

Kinds of Kubernetes itself are checked against its own schemas (the package kubernetes-validate), for the oldest version that
the manifests are for and for the newest one that the package has. Kinds of others are checked against schemas.py.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

from schemas import OF_OTHERS

FOLDER = Path("deploy/kubernetes")
# preStop's `sleep` needs it.
OLDEST = "1.30"


def main():
    faults = []
    objects = []
    for kustomization in sorted(FOLDER.rglob("kustomization.yaml")):
        folder = kustomization.parent
        resources = yaml.safe_load(kustomization.read_text())["resources"]
        there = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        if set(resources) != there:
            faults.append(f"{kustomization}: resources are {sorted(resources)}, files {sorted(there)}")
        for name in resources:
            for document in yaml.safe_load_all((folder / name).read_text()):
                objects.append(document)
                faults += [f"{folder / name}: {fault}" for fault in faults_of(document)]
        faults += rendering(folder)
    if not objects:
        faults.append(f"{FOLDER}: no manifest")
    faults += faults_between(objects)
    if faults:
        sys.exit("\n".join(faults))
    versions = f"Kubernetes {OLDEST} and {kubernetes_validate.latest_version()}"
    print(f"{len(objects)} manifests are as {versions} have them")


def faults_of(document):
    name = f"{document['kind']} {document['metadata']['name']}"
    own = OF_OTHERS.get((document["apiVersion"], document["kind"]))
    if own is not None:
        errors = jsonschema.Draft202012Validator(own).iter_errors(document)
        return [f"{name}: {'.'.join(map(str, error.path))}: {error.message}" for error in errors]
    faults = []
    for version in (OLDEST, kubernetes_validate.latest_version()):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message} (Kubernetes {version})")
        except kubernetes_validate.SchemaNotFoundError as error:
            faults.append(f"{name}: {error.message}")
    return faults


def faults_between(objects):
    """What a schema can't see: labels and ports that belong together."""
    templates = [o["spec"]["template"] for o in objects if o["kind"] == "Deployment"]
    labels = [template["metadata"]["labels"] for template in templates]
    ports = {
        key
        for template in templates
        for container in template["spec"]["containers"]
        for port in container["ports"]
        for key in (port["name"], port["containerPort"])
    }
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        spec = each["spec"]
        selector = spec["selector"]
        wanted = selector.get("matchLabels", selector)
        if not any(wanted.items() <= have.items() for have in labels):
            yield f"{name}: no pod has the labels {wanted}"
        named = [port["targetPort"] for port in spec.get("ports", [])]
        named += [port["number"] for port in spec.get("targetPorts", [])]
        named += [endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", [])]
        yield from (f"{name}: no container has the port {port}" for port in named if port not in ports)
    for template in templates:
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            if mounts != volumes:
                yield f"container {container['name']}: mounts {sorted(mounts)} of the volumes {sorted(volumes)}"


def rendering(folder):
    """What kustomize makes of the folder; its own parser is stricter than ours."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        print(f"SKIPPED how {folder} is rendered: kubectl is not here")
        return []
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode != 0:
        return [f"{folder}: kubectl kustomize: {done.stderr.strip()}"]
    rendered = list(yaml.safe_load_all(done.stdout))
    made = {each["metadata"]["name"] for each in rendered if each["kind"] == "ConfigMap"}
    used = {
        source["configMapRef"]["name"]
        for each in rendered
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        for source in container.get("envFrom", [])
    }
    return [f"{folder}: variables are read from {sorted(used)}, made are {sorted(made)}"] if used != made else []


if __name__ == "__main__":
    main()
