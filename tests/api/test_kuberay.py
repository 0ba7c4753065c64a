"""The manifest for KubeRay: its fields, and its times and ports compared with the program."""

from __future__ import annotations

import ast
from typing import Any

import yaml

from fastrtc_anyio import RequestLimits, Stream
from fastrtc_anyio.limits import Limits
from tests.kit.documentation import find_block


def test_the_manifest_deploys_the_program() -> None:
    program = ast.parse(find_block("docs/guides/kuberay.md", "def build():").text)
    numbers = _numbers(program)
    manifest = yaml.safe_load(find_block("docs/guides/kuberay.md", "kind: RayService").text)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    spec = manifest["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    (application,) = config["applications"]
    module, _, name = application["import_path"].partition(":")
    assert module == "calls"
    assert name in {ast.unparse(n.targets[0]) for n in program.body if isinstance(n, ast.Assign)}
    assert application["route_prefix"] == "/"
    (deployment,) = application["deployments"]
    assert deployment["name"] == "calls"  # the default of deployment()

    cluster = spec["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}  # anyone on the node's network could enter
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    pod = group["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    (container,) = pod["containers"]
    assert config["http_options"]["port"] in {one["containerPort"] for one in container["ports"]}
    (rule,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == group["template"]["metadata"]["labels"]
    assert "cpu" not in container["resources"]["limits"]

    variables = {one["name"]: one["value"] for one in container["env"]}
    drained = float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    last = Limits().close + Limits().shutdown
    assert numbers["time_limit"] <= numbers["drain_timeout"] < drained - last
    assert drained < pod["terminationGracePeriodSeconds"] - last
    assert numbers["drain_timeout"] < spec["rayClusterDeletionDelaySeconds"] - last

    # At most one replica for each CPU is on a node, also while some drain.
    cpus = int(group["rayStartParams"]["num-cpus"])
    assert cpus <= float(container["resources"]["requests"]["cpu"])
    on_node = cpus // deployment["ray_actor_options"]["num_cpus"]
    assert on_node * group["replicas"] > deployment["num_replicas"]  # room to replace some
    first, last_port = numbers["ports"]
    needed = numbers["concurrency_limit"] + RequestLimits().pending_sessions
    assert last_port - first + 1 == on_node * needed


def _numbers(program: ast.Module) -> dict[str, Any]:
    """The arguments of the program that are numbers."""
    found = {}
    for node in ast.walk(program):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg in {"concurrency_limit", "time_limit", "drain_timeout", "ports"}:
                found[keyword.arg] = ast.literal_eval(keyword.value)
    return found


def test_the_program_makes_a_stream() -> None:
    program = ast.parse(find_block("docs/guides/kuberay.md", "def build():").text)
    kept = [node for node in program.body if "cluster.ray" not in ast.unparse(node)]
    namespace: dict[str, Any] = {}
    body = [node for node in kept if not isinstance(node, ast.Assign)]
    exec(compile(ast.Module(body, []), "calls.py", "exec"), namespace)
    assert isinstance(namespace["build"](), Stream)
