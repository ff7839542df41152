"""Checks charts/sheave: what it renders, what must not change it, and what it has to refuse.

Usage: chart_check.py HELM SHEAVE, from the root of the repository; needs kubernetes-validate.
"""

import copy
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

CHART = "charts/sheave"
KUBERNETES = "1.37"
EXAMPLES = [*sorted(pathlib.Path(CHART, "ci").glob("*.yaml")), pathlib.Path("manifests/values.yaml")]
# Custom resources: there is no schema of them here.
UNKNOWN_KINDS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
NAMESPACE = "edge"
# Values that only Helm, or a cluster with special hardware, has a use for.
UNDESCRIBED = {"global", "claims", "localhostProfile", "initialDelaySeconds"}

BASE = {
    "config": {
        "listeners": [{"name": "web", "address": "[::]:8080"}],
        "routes": [{"name": "web", "listener": "web", "backendRefs": [{"upstream": "web"}]}],
        "upstreams": [{"name": "web", "endpoints": [{"address": "10.0.0.7:80"}]}],
    }
}

TWO_LISTENERS = {
    **BASE["config"],
    "listeners": [*BASE["config"]["listeners"], {"name": "more", "address": "[::]:9000"}],
    "routes": [*BASE["config"]["routes"], {"name": "more", "listener": "more", "backendRefs": [{"upstream": "web"}]}],
}

# (what is set, as path and value; parts of the message: the field, and what is the matter)
REFUSED = [
    ("replica", 3, ["additional properties 'replica'"]),
    ("replicas", "three", ["/replicas", "want integer"]),
    ("image.tga", "1", ["/image", "'tga'"]),
    ("commonLabels", {"app.kubernetes.io/name": "x"}, ["/commonLabels/app.kubernetes.io~1name", "the chart sets"]),
    ("kind", "StatefulSet", ["/kind", "'Deployment', 'DaemonSet'"]),
    ("config.listener", [], ["/config", "'listener'"]),
    ("config.listeners.0.adress", "[::]:80", ["/config/listeners/0", "'adress'"]),
    ("config.listeners.0.address", 8080, ["/config/listeners/0/address", "want string"]),
    ("config.listeners.0.protocol", "UDP", ["/config/listeners/0/protocol", "'TCP', 'TLS'"]),
    ("config.listeners.0.proxyProtocol.mode", "On", ["/config/listeners/0/proxyProtocol/mode", "'Off'"]),
    ("config.listeners.0.tls.mode", "Decrypt", ["/config/listeners/0/tls/mode", "'Terminate'"]),
    ("config.routes.0.hostnames", ["*"], ["/config/routes/0/hostnames/0", "does not match pattern"]),
    ("config.upstreams.0.loadBalancer.type", "LeastRequest", ["/config/upstreams/0/loadBalancer/type", "'Random'"]),
    ("config.upstreams.0.retry.numRetries", "2", ["/config/upstreams/0/retry/numRetries", "want integer"]),
    ("config.drain.delay", 5, ["/config/drain/delay", "want string"]),
    ("config.drain.delay", "1.5s", ["/config/drain/delay", "does not match pattern"]),
    ("metrics.dashboards.enabled", "yes", ["/metrics/dashboards/enabled", "want boolean"]),
    ("metrics.prometheusRule.runbooks", "", ["/metrics/prometheusRule/runbooks", "minLength"]),
]
# The same, of what a schema cannot tell: `helm lint` takes these, `helm template` and `install` do not.
FAILED = [
    ("config.listeners", [], ["config.listeners is empty", "listeners: [{name: web"]),
    ("config.listeners.0.address", ":8080", ["config.listeners[0].address", '"web"', "[::]:5432"]),
    ("config.listeners.0.address", "web:8080", ["config.listeners[0].address", "not an IP address"]),
    ("config.listeners.0.address", "::1:8080", ["config.listeners[0].address", "not an IP address"]),
    ("config.listeners.0.address", "[::]:65536", ["config.listeners[0].address", "1 to 65535"]),
    ("config.listeners.0.address", "[::]:0", ["config.listeners[0].address", "1 to 65535"]),
    ("config.listeners.0.address", "127.0.0.1:8080", ["config.listeners[0].address", '"[::]:8080"']),
    ("config.listeners.0.address", "0.0.0.0:9901", ["config.listeners[0].address", "config.admin.address"]),
    ("config.listeners.1", {"name": "web", "address": "[::]:9000"}, ["config.listeners[1].name", '"web"', "already"]),
    ("config.listeners.1", {"name": "more", "address": "[::]:8080"}, ["config.listeners[1].address", "[::]:8080", '"web"']),
    ("config.listeners.1", {"name": "more", "address": "[::]:9000"}, ["config.listeners[1]", '"more"', "no route"]),
    ("config.upstreams.1", {"name": "more"}, ["config.upstreams[1]", '"more"', "has no endpoints"]),
    (
        "config.upstreams.1",
        {"name": "more", "endpoints": [{"address": "10.0.0.8:80"}], "service": {"namespace": "a", "name": "b", "port": 1}},
        ["config.upstreams[1]", "both endpoints and a service"],
    ),
    ("config.upstreams.1", {"name": "more", "endpoints": [{"address": "999.1.1.1:80"}]}, ["endpoints[0].address", "999"]),
    ("config.upstreams.1", {"name": "more", "endpoints": [{"address": "10.0.0.8"}]}, ["endpoints[0].address", "10.0.0.8"]),
    (
        "config.upstreams.1",
        {"name": "more", "endpoints": [{"address": "10.0.0.8:80", "weight": 0}]},
        ["config.upstreams[1]", "every weight is 0"],
    ),
    ("config.routes.0.backendRefs.0.weight", 0, ["config.routes[0].backendRefs", "every weight is 0"]),
    ("config.routes.0.listener", "wbe", ["config.routes[0].listener", '"wbe"', "there are: web"]),
    ("config.routes.0.backendRefs.0.upstream", "wbe", ["config.routes[0].backendRefs", '"wbe"', "there are: web"]),
    ("config.admin", None, ["config.admin.address", "kubelet", '"[::]:9901"']),
    ("config.admin.address", "127.0.0.1:9901", ["config.admin.address", "kubelet", '"[::]:9901"']),
    ("config.admin.address", "[::1]:9901", ["config.admin.address", '"[::]:9901"']),
    ("config.admin.address", "[0:0::1]:9901", ["config.admin.address", '"[::]:9901"']),
    ("config.admin.address", "[::ffff:127.0.0.1]:9901", ["config.admin.address", '"[::]:9901"']),
    ("terminationGracePeriodSeconds", 65, ["terminationGracePeriodSeconds", "takes 65 s", "at least 80"]),
    ("autoscaling.enabled", True, ["autoscaling.enabled", "kind: Deployment"], {"kind": "DaemonSet"}),
    ("metrics.serviceMonitor.enabled", True, ["metrics.serviceMonitor", "metrics.service.enabled: true"]),
    ("seccompProfile.type", "Localhost", ["seccompProfile.localhostProfile: missing"]),
]
SHARED_PORT = {
    **BASE["config"],
    "listeners": [
        {"name": name, "address": "[::]:8443", "protocol": "TLS", "tls": {"mode": "Passthrough"}} for name in "ab"
    ],
    "routes": [
        {"name": name, "listener": name, "hostnames": [f"{name}.example"], "backendRefs": [{"upstream": "web"}]}
        for name in "ab"
    ],
}

# What may change while pods run: their template must stay as it is, byte by byte.
LIVE = [
    ("config.listeners.0.address", "[::]:8081"),
    ("config", TWO_LISTENERS),
    ("config", SHARED_PORT),
    ("config.routes.0.sources", ["10.0.0.0/8"]),
    ("config.upstreams.1", {"name": "more", "endpoints": [{"address": "10.0.0.8:80"}]}),
    ("config.metrics.perEndpoint", False),
    ("replicas", 5),
    ("service.type", "LoadBalancer"),
    ("metrics.service.enabled", True),
    ("metrics.prometheusRule.enabled", True),
    ("metrics.dashboards.enabled", True),
]
# What Sheave or the kubelet takes over only when a pod starts: the template must change.
AT_START = [
    ("config.log.level", "debug"),
    ("config.workers.count", 2),
    ("config.admin.address", "[::]:9902"),
    ("metrics.annotations.enabled", True),
    ("config.drain.timeout", "61s"),
    ("config.listeners.0.address", "[::]:80"),
    ("resources.limits.memory", "1Gi"),
]
# (delay, timeout, preStop sleep, grace period)
GRACE = [
    ("5s", "60s", 0, 80),
    ("0s", "1h30m", 0, 5415),
    ("250ms", "250ms", 0, 16),
    ("1500ms", "1m", 10, 87),
    ("08s", "1m2s3ms", 0, 86),
]


def main(helm, sheave):
    chart = Chart(helm, sheave)
    checks = [chart.example, chart.refused, chart.failed, chart.live, chart.at_start, chart.grace]
    tables = [EXAMPLES, REFUSED, FAILED, LIVE, AT_START, GRACE]
    for check, table in zip(checks, tables):
        for row in table:
            check(*row) if isinstance(row, tuple) else check(row)
    chart.defaults()
    for problem in chart.problems:
        print(f"chart: {problem}", file=sys.stderr)
    if chart.problems:
        sys.exit(f"chart: {len(chart.problems)} problems")
    print(f"chart: {len(EXAMPLES)} values files and {sum(map(len, tables[1:]))} single values are as they should be")


class Chart:
    def __init__(self, helm, sheave):
        self.helm = helm
        self.sheave = sheave
        self.problems = []
        self.base_pod = pod_template(self.documents(self.template(BASE).stdout))

    def example(self, file):
        """A values file has to pass everything."""
        lint = self.run("lint", "--strict", CHART, "--values", str(file))
        rendered = self.run("template", "sheave", CHART, "--namespace", NAMESPACE, "--values", str(file))
        for result in lint, rendered:
            self.expect(result.returncode == 0, f"{file}: {result.stdout}{result.stderr}")
        if rendered.returncode != 0:
            return
        documents = self.documents(rendered.stdout)
        for document in documents:
            where = f"{file}: {document['kind']} {document['metadata']['name']}"
            self.expect("namespace" in document["metadata"], f"{where}: has no namespace")
            if document["kind"] not in UNKNOWN_KINDS:
                self.kubernetes_takes(where, document)
        self.sheave_takes(file, documents)
        self.restricted(file, pod_template(documents)["spec"])
        self.roles(file, documents, yaml.safe_load(file.read_text()))

    def kubernetes_takes(self, where, document):
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            self.problems.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message}")

    def sheave_takes(self, file, documents):
        configs = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
        [config] = [data["config.yaml"] for data in configs if "config.yaml" in data]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rendered:
            rendered.write(config)
            rendered.flush()
            check = subprocess.run([self.sheave, "check", "--without-certificates", rendered.name], capture_output=True, text=True)
        self.expect(check.returncode == 0, f"{file}: sheave check: {check.stderr}")

    def restricted(self, file, pod):
        """Pod Security "restricted", and no port of a listener."""
        [container] = pod["containers"]
        of_pod, of_container = pod["securityContext"], container["securityContext"]
        profile = of_pod.get("seccompProfile", {}).get("type")
        self.expect(of_pod.get("runAsNonRoot") is True, f"{file}: may run as root")
        self.expect(profile in {"RuntimeDefault", "Localhost"}, f"{file}: seccomp profile {profile}")
        self.expect(of_container.get("allowPrivilegeEscalation") is False, f"{file}: may gain privileges")
        self.expect(of_container.get("capabilities") == {"drop": ["ALL"]}, f"{file}: has capabilities")
        self.expect(of_container.get("readOnlyRootFilesystem") is True, f"{file}: may write to its root")
        self.expect([port["name"] for port in container["ports"]] == ["admin"], f"{file}: listeners' containerPorts")

    def roles(self, file, documents, values):
        """Roles and RoleBindings in the namespaces that are named, no other rights, and no token without them."""
        upstreams = values["config"]["upstreams"]
        services = {upstream["service"]["namespace"] for upstream in upstreams if "service" in upstream}
        objects = named_objects(values["config"])
        wanted = [*services, *{namespace for namespace, _, _ in objects}]
        for kind in "Role", "RoleBinding":
            got = [document["metadata"]["namespace"] for document in documents if document["kind"] == kind]
            self.expect(sorted(got) == sorted(wanted), f"{file}: {kind} in {got}, needed are {wanted}")
        granted = set()
        for document in documents:
            for rule in document.get("rules", []):
                if rule["resources"] in (["services"], ["endpointslices"]):
                    self.expect(rule["verbs"] == ["list", "watch"], f"{file}: verbs {rule['verbs']}")
                    continue
                self.expect(rule["verbs"] == ["get", "list", "watch"], f"{file}: verbs {rule['verbs']}")
                self.expect(rule["resourceNames"], f"{file}: {rule['resources']} of any name")
                namespace, resource = document["metadata"]["namespace"], rule["resources"][0]
                granted |= {(namespace, resource, name) for name in rule["resourceNames"]}
        self.expect(granted == objects, f"{file}: rights on {sorted(granted)}, needed are {sorted(objects)}")
        kinds = {document["kind"] for document in documents}
        self.expect(not kinds & {"ClusterRole", "ClusterRoleBinding"}, f"{file}: rights in the whole cluster")
        token = pod_template(documents)["spec"]["automountServiceAccountToken"]
        self.expect(token is bool(wanted), f"{file}: automountServiceAccountToken {token}")

    def refused(self, path, value, parts):
        values = with_value(BASE, path, value)
        for result in self.lint(values), self.template(values):
            self.complains(result, f"{path}: {value!r}", parts)

    def failed(self, path, value, parts, also=None):
        values = with_value({**BASE, **(also or {})}, path, value)
        self.complains(self.template(values), f"{path}: {value!r}", parts)

    def complains(self, result, what, parts):
        output = result.stdout + result.stderr
        self.expect(result.returncode != 0, f"{what} was taken")
        for part in parts:
            self.expect(part in output, f"{what}: no {part!r} in: {output}")

    def live(self, path, value):
        pod = self.pod(path, value)
        self.expect(pod == self.base_pod, f"{path}: {value!r} changes the pods' template, so it would restart them")

    def at_start(self, path, value):
        pod = self.pod(path, value)
        self.expect(pod != self.base_pod, f"{path}: {value!r} leaves the pods' template as it is, so it would never act")

    def grace(self, delay, timeout, sleep, wanted):
        values = with_value(BASE, "config.drain", {"delay": delay, "timeout": timeout})
        if sleep:
            values = with_value(values, "lifecycle.preStop.sleep.seconds", sleep)
        got = pod_template(self.documents(self.template(values).stdout))["spec"]["terminationGracePeriodSeconds"]
        self.expect(got == wanted, f"delay {delay}, timeout {timeout}, sleep {sleep}: {got} s of grace, not {wanted}")

    def defaults(self):
        """Whoever lints or looks at the chart without values is told nothing worse than what is missing."""
        result = self.run("lint", "--strict", CHART)
        self.expect(result.returncode == 0, f"no values: {result.stdout}{result.stderr}")
        values, own, metadata = map(read_yaml, ("values.yaml", "schema/values.json", "Chart.yaml"))
        self.described("values.yaml", values, own, own["$defs"])
        version = subprocess.run([self.sheave, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
        self.expect(metadata["appVersion"] == version, f"Chart.yaml: appVersion is not {version}, what sheave says")

    def described(self, where, values, schema, definitions):
        """Every value that the schema takes stands in values.yaml."""
        schema = {**definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"), {}), **schema}
        # Empty ones are handed on as they are, or described in one line.
        if schema.get("type") != "object" or not values:
            return
        for name, part in schema.get("properties", {}).items():
            if name in values:
                self.described(f"{where}: {name}", values[name], part, definitions)
            elif name not in UNDESCRIBED:
                self.problems.append(f"{where}: {name} is missing, with its default and a comment")

    def pod(self, path, value):
        result = self.template(with_value(BASE, path, value))
        self.expect(result.returncode == 0, f"{path}: {value!r}: {result.stderr}")
        return pod_template(self.documents(result.stdout))

    def template(self, values):
        return self.with_values(values, "template", "sheave", CHART, "--namespace", NAMESPACE)

    def lint(self, values):
        return self.with_values(values, "lint", "--strict", CHART)

    def with_values(self, values, *arguments):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            return self.run(*arguments, "--values", file.name)

    def run(self, *arguments):
        return subprocess.run([self.helm, *arguments], capture_output=True, text=True)

    def expect(self, is_right, problem):
        if not is_right:
            self.problems.append(problem)

    @staticmethod
    def documents(text):
        return [document for document in yaml.safe_load_all(text) if document]


def read_yaml(name):
    return yaml.safe_load(pathlib.Path(CHART, name).read_text())


def named_objects(value):
    """The Secrets and ConfigMaps that a configuration names anywhere, as (namespace, resource, name)."""
    if isinstance(value, list):
        return set().union(*(named_objects(item) for item in value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*(named_objects(item) for item in value.values()))
    for kind in "secret", "configMap":
        if isinstance(value.get(kind), str):
            namespace, name = value[kind].split("/")
            found.add((namespace, f"{kind.lower()}s", name))
    return found


def pod_template(documents):
    pods = [document["spec"]["template"] for document in documents if document["kind"] in {"Deployment", "DaemonSet"}]
    return pods[0] if pods else None


def with_value(values, path, value):
    """A copy with another value at a path like config.listeners.0.address; an index past the end appends."""
    values = copy.deepcopy(values)
    place = values
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    if isinstance(place, list):
        place.insert(int(last), value)
    else:
        place[last] = value
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
