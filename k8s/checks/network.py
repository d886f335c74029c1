"""The network policies allow what the settings say that somebody connects to, and nothing else."""

import re
from urllib.parse import urlsplit

import yaml

from shop import selects

PORTS = {"https": 443, "http": 80, "postgres": 5432, "amqp": 5672, "amqps": 5671}
# Who takes requests from everywhere.
PUBLIC = {("edge", 8080)}
# Addresses for browsers: the Pod itself goes nowhere by them.
FOR_BROWSERS = ("PUBLIC_URL", "PAYMENT_RETURN_URL", "PASSWORD_RESET_URL", "EMAIL_VERIFICATION_URL")
# What stores and the maker of secrets need beside their clients, by (policy, direction, app, port); no setting names
# these. The app is `*` where Kubernetes or an operator is the other side, the port `TCP` for all of them.
OWN = {
    ("make-secrets", "out", "*", "TCP"),
    ("postgres-cluster", "out", "*", 443), ("postgres-cluster", "out", "*", 6443),
    ("postgres-cluster", "in", "*", 5432), ("postgres-cluster", "in", "*", 8000),
    ("postgres-cluster", "out", "postgres", 5432), ("postgres-cluster", "out", "postgres", 8000),
    ("postgres-cluster", "in", "postgres", 5432), ("postgres-cluster", "in", "postgres", 8000),
    ("pooler", "out", "*", 443), ("pooler", "out", "*", 6443),
    ("rabbitmq-cluster", "out", "*", 443), ("rabbitmq-cluster", "out", "*", 6443),
    ("rabbitmq-cluster", "in", "*", 15671),
    ("rabbitmq-cluster", "out", "rabbitmq", 4369), ("rabbitmq-cluster", "out", "rabbitmq", 25672),
    ("rabbitmq-cluster", "in", "rabbitmq", 4369), ("rabbitmq-cluster", "in", "rabbitmq", 25672),
    # The log collectors have a namespace of their own.
    ("loki", "in", "*", 3100), ("logstash", "in", "*", 5044),
}
# Who connects by what its files say.
BY_FILES = {"prometheus", "grafana", "collector", "logstash"}
# Of what is nowhere in the set-ups for Kubernetes.
ELSEWHERE = {"postgres-metrics", "collector-metrics", "localhost"}


def check(shop):
    wanted, problems = declared(shop)
    yield from problems
    allowed, public = {"out": set(), "in": set()}, set()
    denied = False
    for policy in shop.all("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        if spec["podSelector"] == {}:
            if name == "default-deny" and set(spec["policyTypes"]) == {"Ingress", "Egress"} and spec.keys() == {"podSelector", "policyTypes"}:
                denied = True
            elif name != "names" or not names_only(spec):
                yield f"NetworkPolicy/{name}: opens something for every Pod"
            continue
        app = spec["podSelector"].get("matchLabels", {}).get("app")
        if spec["podSelector"] != {"matchLabels": {"app": app}}:
            yield f"NetworkPolicy/{name}: is not for one app"
            continue
        for direction, rules, peers in (("out", "egress", "to"), ("in", "ingress", "from")):
            if (rules in spec) != (rules.capitalize() in spec["policyTypes"]):
                yield f"NetworkPolicy/{name}: policyTypes does not go with its rules"
            for rule in spec.get(rules, []):
                for other, port in ends(rule, peers):
                    if (name, direction, other, port) in OWN:
                        continue
                    if direction == "in" and other == "*" and (app, port) in PUBLIC and "from" not in rule:
                        public.add((app, port))
                        continue
                    allowed[direction].add((app, other, port) if direction == "out" else (other, app, port))
    if not denied:
        yield "no NetworkPolicy denies by default, in and out"
    inside = {path for path in wanted if path[1] != "outside" and path[1:] not in public}
    for direction, needed in (("out", wanted), ("in", inside)):
        for source, target, port in sorted(needed - allowed[direction], key=str):
            yield f"network: {source} connects to {target}:{port}, but no policy lets it {direction}"
        for source, target, port in sorted(allowed[direction] - needed, key=str):
            yield f"network: a policy lets {source} {direction} to {target}:{port}, which no setting names"


def names_only(spec):
    """Whether a policy allows nothing but asking the cluster's DNS."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    return spec["policyTypes"] == ["Egress"] and spec["egress"] == [{"to": [dns], "ports": ports}]


def ends(rule, peers):
    """(app, port) of each end that a rule opens.

    The app is `*` for what is none of this namespace; the port `TCP` for all of TCP, None for other protocols and ranges.
    """
    ports = [
        entry.get("port", "TCP") if entry.get("protocol", "TCP") == "TCP" and "endPort" not in entry else None
        for entry in rule.get("ports") or [{"protocol": "any"}]
    ]
    for peer in rule.get(peers) or [{}]:
        app = peer.get("podSelector", {}).get("matchLabels", {}).get("app")
        other = app if peer == {"podSelector": {"matchLabels": {"app": app}}} else "*"
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
            other = "outside" if private <= set(block.get("except", [])) else "*"
        for port in ports:
            yield other, port


def declared(shop):
    """The connections that the settings name, as {(app, app, port of the Pod)}, and settings that lead nowhere."""
    wanted, problems = set(), []
    for workload in shop.workloads:
        for name, value in shop.effective(workload).items():
            if name in FOR_BROWSERS:
                continue
            for host, port in addresses(name, value, shop.effective(workload)):
                found = resolve(shop, host, port)
                if found:
                    wanted.add((workload.app, *found))
                    if headless(shop, host) and not name.endswith("_GRPC"):
                        problems.append(f"{workload}: {name} names {host}, which is headless: a cache of names would keep a Pod that is gone")
                elif "." in host and "svc" not in host.split("."):
                    wanted.add((workload.app, "outside", port))
                else:
                    problems.append(f"{workload}: {name} names {host}:{port}, which no Service offers")
        for host, port in in_files(shop, workload) if workload.app in BY_FILES else []:
            found = resolve(shop, host, port)
            if found:
                wanted.add((workload.app, *found))
            elif host not in ELSEWHERE:
                problems.append(f"{workload}: a file of it names {host}:{port}, which no Service offers")
    # The operator's Pods, which go to their cluster.
    for pooler in shop.all("Pooler"):
        source, cluster = pooler["spec"]["template"]["metadata"]["labels"]["app"], pooler["spec"]["cluster"]["name"]
        found = resolve(shop, cluster, 5432)
        wanted |= {(source, *found)} if found else set()
        problems += [] if found else [f"Pooler/{pooler['metadata']['name']}: is for {cluster}, which is not there"]
    return wanted, problems


def in_files(shop, workload):
    """(host, port) of everything that its ConfigMaps say to connect to; what it listens on has no name."""
    for volume in workload.pod.get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for name in [source["configMap"]["name"] for source in sources if "configMap" in source]:
            for file, text in shop.by_name["ConfigMap", name]["data"].items():
                text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
                yield from ((host, int(port)) for host, port in re.findall(r"(?<![\w.:])([a-z][a-z-]*):(\d{4,5})\b", text) if not file.endswith(".json"))
                if file == "prometheus.yml":
                    jobs = yaml.safe_load(text)["scrape_configs"]
                    yield from ((host, asked["port"]) for job in jobs for asked in job.get("dns_sd_configs", []) for host in asked["names"])


def addresses(name, value, env):
    """(host, port) of everything that a setting says to connect to."""
    if not value or name.endswith(("_ADDR", "_LISTEN")):
        return []
    if name == "PGHOST":
        return [(value, int(env.get("PGPORT", 5432)))]
    if "://" in value:
        # The passwords are filled in later, and need not be parsed.
        url = urlsplit(re.sub(r"\$\(\w+\)", "x", value))
        # A bucket's name; its address is AWS_ENDPOINT_URL.
        if url.scheme == "s3":
            return []
        return [(url.hostname, url.port or PORTS.get(url.scheme))] if url.hostname else []
    if name.endswith(("_UPSTREAM", "_ROUTE", "_CANARY")):
        return [(host, int(port)) for host, port in re.findall(r"([\w.-]+):(\d+)", value)]
    return []


def headless(shop, host):
    """Whether a name stands for Pods. gRPC's clients want that, and leave one that fails; stores must keep their address."""
    name = host.split(".")[0]
    made = [s["serviceTemplate"] for c in shop.all("Cluster") for s in c["spec"]["managed"]["services"]["additional"]]
    made += [{"metadata": p["metadata"], **p["spec"].get("serviceTemplate", {})} for p in shop.all("Pooler")]
    services = [s for s in [*shop.all("Service"), *made] if s["metadata"]["name"] == name]
    return any(s.get("spec", {}).get("clusterIP") == "None" for s in services)


def resolve(shop, host, port):
    """(app, port) of the Pods behind an address."""
    name = host.split(".")[0] if host.split(".")[1:3] in ([], ["dockside"], ["dockside", "svc"]) else None
    for service in shop.all("Service"):
        if service["metadata"]["name"] != name:
            continue
        for entry in service["spec"]["ports"]:
            if entry["port"] != port:
                continue
            for workload in shop.workloads:
                if selects(service["spec"]["selector"], workload.labels):
                    for container in workload.pod["containers"]:
                        for opened in container.get("ports", []):
                            if entry["targetPort"] in (opened["name"], opened["containerPort"]):
                                return workload.app, opened["containerPort"]
    # The operators make these Services, for Pods with the label that the resource passes on.
    for cluster in shop.all("Cluster"):
        for service in cluster["spec"]["managed"]["services"]["additional"]:
            if (service["serviceTemplate"]["metadata"]["name"], 5432) == (name, port):
                return cluster["spec"]["inheritedMetadata"]["labels"]["app"], port
    for pooler in shop.all("Pooler"):
        if (pooler["metadata"]["name"], 5432) == (name, port):
            return pooler["spec"]["template"]["metadata"]["labels"]["app"], port
    for cluster in shop.all("RabbitmqCluster"):
        # By TLS alone, where it says so. Its metrics have a Service of ours.
        amqp = 5671 if cluster["spec"].get("tls", {}).get("disableNonTLSListeners") else 5672
        if (name, port) in ((cluster["metadata"]["name"], amqp), ("rabbitmq-metrics", 15692)):
            return cluster["metadata"]["labels"]["app"], port
    return None
