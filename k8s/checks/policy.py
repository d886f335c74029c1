"""What every Pod and every service must have."""

import re
from urllib.parse import parse_qs, urlsplit

from shop import mebibytes, selects

# A password hash takes 19 MiB and the idle user service 20: docs/deploy.md.
HASH, IDLE_USER = 19, 20
# A client that listens to an order's events takes 30 KiB, and what else the order service does up to 54 MiB.
LISTENER, BUSY_ORDER = 30 / 1024, 54
SERVICES = ("user", "product", "order")
# The one workload that may talk to Kubernetes, with the one right it has.
TALKS_TO_KUBERNETES = "make-secrets"
# CoreDNS lets resolvers keep a name for 5 s, and kube-proxy hears of a change within a second or two.
NAMES_LAST = 5


def check(shop):
    for workload in shop.workloads:
        yield from locked_down(shop, workload)
        if workload.serves:
            yield from probed(workload)
        if workload.kind == "CronJob":
            yield from scheduled(workload)
        if workload.kind == "Deployment":
            yield from replicated(shop, workload)
            yield from ends_in_time(shop, workload)
        if workload.app in shop.settings:
            yield from configured(shop, workload)
    yield from reconciled(shop)
    yield from encrypted(shop)
    yield from https_only(shop)
    yield from edge_template(shop)
    yield from asked_for_by_secret(shop)
    yield from one_proxy(shop)
    yield from namespace_and_rights(shop)
    yield from secrets(shop)
    yield from pooled(shop)
    yield from connections_fit(shop)


def locked_down(shop, workload):
    """Pod Security `restricted`, and more: a read-only root, resources, an image that says which it is."""
    pod = workload.pod.get("securityContext", {})
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{workload}: seccompProfile is not RuntimeDefault"
    if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
        yield f"{workload}: may run as root"
    if any(workload.pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{workload}: shares a namespace of the host"
    if any("hostPath" in volume for volume in workload.pod.get("volumes", [])):
        yield f"{workload}: mounts a path of the host"
    account = shop.by_name.get(("ServiceAccount", workload.pod.get("serviceAccountName")))
    if account is None or account.get("automountServiceAccountToken") is not False:
        yield f"{workload}: has no ServiceAccount of its own without a token"
    token = workload.pod.get("automountServiceAccountToken") is not False
    if token != (workload.app == TALKS_TO_KUBERNETES):
        yield f"{workload}: {'gets' if token else 'lacks'} a ServiceAccount token"
    if workload.pod.get("enableServiceLinks") is not False:
        yield f"{workload}: gets variables of every Service, which could be taken for settings"
    for container in workload.containers:
        name = f"{workload}, {container['name']}"
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{name}: may gain privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: keeps capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: can write to its image"
        if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
            yield f"{name}: may run as root"
        for part in ("requests", "limits"):
            if not {"cpu", "memory"} <= container.get("resources", {}).get(part, {}).keys():
                yield f"{name}: lacks {part} for CPU and memory"
        image = container["image"].rpartition("/")[2]
        if ":" not in image or image.endswith(":latest"):
            yield f"{name}: image {container['image']} has no fixed tag"
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{name}: imagePullPolicy is not IfNotPresent"
        for mount in container.get("volumeMounts", []):
            claims = workload.thing["spec"].get("volumeClaimTemplates", [])
            volumes = [v["name"] for v in workload.pod.get("volumes", [])] + [c["metadata"]["name"] for c in claims]
            if mount["name"] not in volumes:
                yield f"{name}: mounts the volume {mount['name']}, which the Pod does not have"


def probed(workload):
    """All three probes; the services' on the admin port, each at its own path."""
    paths = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    container = workload.pod["containers"][0]
    for probe, path in paths.items():
        if probe not in container:
            yield f"{workload}: has no {probe}"
        elif workload.app in (*SERVICES, "storefront") and container[probe].get("httpGet") != {"path": path, "port": "admin"}:
            yield f"{workload}: {probe} does not ask {path} on the admin port"


def scheduled(workload):
    """Its runs end by themselves and one at a time, and those that failed are there to be looked at."""
    spec, job = workload.thing["spec"], workload.thing["spec"]["jobTemplate"]["spec"]
    if spec.get("concurrencyPolicy") != "Forbid":
        yield f"{workload}: may run beside itself"
    if not job.get("activeDeadlineSeconds"):
        yield f"{workload}: may run for ever"
    if job.get("backoffLimit", 6) > 3:
        yield f"{workload}: fails only after {job.get('backoffLimit', 6)} more tries"
    if not spec.get("failedJobsHistoryLimit") or "successfulJobsHistoryLimit" not in spec:
        yield f"{workload}: does not say how many of its Jobs are kept, or keeps none that failed"


def reconciled(shop):
    """Each hour everything is compared, and nothing mended: by a role that only reads, in a session of its own."""
    found = [w for w in shop.workloads if (w.kind, w.name, w.app) == ("CronJob", "reconcile", "reconcile")]
    if len(found) != 1:
        return (yield "there is no CronJob reconcile")
    workload, spec = found[0], found[0].thing["spec"]
    if not re.fullmatch(r"\d+ \* \* \* \*", spec["schedule"]) or spec.get("suspend"):
        yield f"{workload}: does not run each hour"
    args = workload.pod["containers"][0].get("args", [])
    if args[:2] != ["reconcile", "--log"] or "--mend" in args:
        yield f"{workload}: does other things than to compare, or is not to be read in a log"
    if workload.pod.get("restartPolicy") != "Never":
        yield f"{workload}: loses the log of a try that failed"
    address = (shop.env(workload).get("DATABASE_URL") or "").partition("?")[0]
    if address != "postgres://reconcile:$(PASSWORD)@postgres:5432/dockside":
        yield f"{workload}: has another role than the one that only reads, or goes through a pooler"


def encrypted(shop):
    """In production stores and other services are spoken to by TLS, by authorities that are mounted, and take nothing else."""
    if not shop.all("ExternalSecret"):
        return
    for workload in shop.workloads:
        env = shop.env(workload)
        if env.get("ALLOW_PLAINTEXT", "false") != "false":
            yield f"{workload}: may speak to stores in the clear"
        files = []
        for name in ("DATABASE_URL", "DATABASE_DIRECT_URL"):
            if name in env:
                query = parse_qs(urlsplit(env[name].replace("$(PASSWORD)", "x")).query)
                files += query.get("sslrootcert", [""])
                if query.get("sslmode") != ["verify-full"]:
                    yield f"{workload}: {name} does not have the server's certificate checked"
        if "AMQP_URL" in env:
            address = urlsplit(env["AMQP_URL"].replace("$(PASSWORD)", "x"))
            files += parse_qs(address.query).get("cacertfile", [""])
            if address.scheme != "amqps":
                yield f"{workload}: AMQP_URL is plain"
        if workload.app in SERVICES:
            yield from mutual(shop, workload)
        if "PGHOST" in env:
            files.append(env.get("PGSSLROOTCERT", ""))
            if env.get("PGSSLMODE") != "verify-full":
                yield f"{workload}: PGSSLMODE does not have the server's certificate checked"
        for file in files:
            if file not in mounted(workload):
                yield f"{workload}: nothing is mounted as the authority's file {file}"
    for cluster in shop.all("Cluster"):
        if "hostnossl all all all reject" not in cluster["spec"]["postgresql"].get("pg_hba", []):
            yield "PostgreSQL takes connections without TLS"
    for cluster in shop.all("RabbitmqCluster"):
        tls = cluster["spec"].get("tls", {})
        made = {c["spec"]["secretName"] for c in shop.all("Certificate")}
        if tls.get("secretName") not in made or tls.get("disableNonTLSListeners") is not True:
            yield "RabbitMQ takes connections without TLS, or has no certificate"


def https_only(shop):
    """In production visitors get in by HTTPS alone, with a certificate, and browsers are told to keep to that."""
    if not shop.all("ExternalSecret"):
        return
    for service in shop.all("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"Service/{service['metadata']['name']}: is reached past the Gateway or Ingress"
    made = {(c["metadata"]["namespace"], c["spec"]["secretName"]): c["spec"] for c in shop.all("Certificate")}
    doors = shop.all("Gateway") + shop.all("Ingress")
    if not doors:
        yield "there is neither a Gateway nor an Ingress"
    plain = set()
    for gateway in shop.all("Gateway"):
        for listener in gateway["spec"]["listeners"]:
            if listener["protocol"] != "HTTPS":
                plain.add(listener["name"])
                continue
            for ref in listener["tls"]["certificateRefs"]:
                spec = made.get((gateway["metadata"]["namespace"], ref["name"]), {})
                if listener["hostname"] not in spec.get("dnsNames", []):
                    yield f"Gateway/{gateway['metadata']['name']}: nobody makes the certificate for {listener['hostname']}"
    for route in shop.all("HTTPRoute"):
        name = f"HTTPRoute/{route['metadata']['name']}"
        secure = all(ref.get("sectionName") not in {None, *plain} for ref in route["spec"]["parentRefs"])
        for rule in route["spec"]["rules"]:
            filters = {f["type"]: f for f in rule.get("filters", [])}
            redirect = filters.get("RequestRedirect", {}).get("requestRedirect", {})
            if not secure and (rule.get("backendRefs") or redirect.get("scheme") != "https"):
                yield f"{name}: serves without TLS"
            headers = filters.get("ResponseHeaderModifier", {}).get("responseHeaderModifier", {}).get("set", [])
            if secure and {"name": "Strict-Transport-Security", "value": "max-age=31536000; includeSubDomains"} not in headers:
                yield f"{name}: does not tell browsers to keep to HTTPS"
    for ingress in shop.all("Ingress"):
        name, spec = f"Ingress/{ingress['metadata']['name']}", ingress["spec"]
        # ingress-nginx sends whoever comes by HTTP to HTTPS where there is TLS, and sets HSTS, unless it is told not to.
        notes = ingress["metadata"].get("annotations", {})
        if notes.get("nginx.ingress.kubernetes.io/ssl-redirect", "true") != "true":
            yield f"{name}: serves without TLS"
        for host in (rule.get("host") for rule in spec["rules"]):
            for_host = [tls for tls in spec.get("tls", []) if host in tls["hosts"]]
            specs = [made.get((ingress["metadata"]["namespace"], tls.get("secretName")), {}) for tls in for_host]
            if not any(host in s.get("dnsNames", []) for s in specs):
                yield f"{name}: nobody makes the certificate for {host}"


def mutual(shop, workload):
    """Services show each other certificates, for the names that they are called by."""
    env, certificates = shop.effective(workload), {c["spec"]["secretName"]: c["spec"] for c in shop.all("Certificate")}
    folder = env.get("TLS_DIR") or "nothing"
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if mounted(workload).get(f"{folder}/{name}", ("", ""))[1] != name:
            yield f"{workload}: TLS_DIR lacks {name}"
    shown = certificates.get(mounted(workload).get(f"{folder}/tls.crt", ("", ""))[0], {})
    if not {"server auth", "client auth"} <= set(shown.get("usages", [])):
        yield f"{workload}: its certificate is made by nobody, or not for both sides"
    for name in ("JWKS_URL", "USER_GRPC", "PRODUCT_GRPC"):
        if name in shop.settings[workload.app]:
            address = urlsplit(env[name])
            if address.scheme != "https":
                yield f"{workload}: {name} is plain"
            elif not any(address.hostname in c["dnsNames"] for c in certificates.values() if "dnsNames" in c):
                yield f"{workload}: no certificate is for {address.hostname}, which {name} names"


def mounted(workload):
    """The files that Secrets make in the first container, with the Secret and its field: {path: (name, key)}."""
    files = {}
    places = {mount["name"]: mount["mountPath"] for mount in workload.pod["containers"][0].get("volumeMounts", [])}
    for volume in workload.pod.get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for secret in (source["secret"] for source in sources if "secret" in source):
            name = secret.get("name") or secret.get("secretName")
            for item in secret.get("items", []):
                files[f"{places.get(volume['name'])}/{item['path']}"] = name, item["key"]
    return files


def replicated(shop, workload):
    """Autoscaler, disruption budget, spread and rolling update agree with each other."""
    spec = workload.thing["spec"]
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
        yield f"{workload}: an update takes a replica away before the next is ready"
    scalers = [
        h for h in shop.all("HorizontalPodAutoscaler")
        if (h["spec"]["scaleTargetRef"]["kind"], h["spec"]["scaleTargetRef"]["name"]) == (workload.kind, workload.name)
    ]
    if len(scalers) != 1:
        return (yield f"{workload}: has {len(scalers)} autoscalers")
    scaler = scalers[0]["spec"]
    if "replicas" in spec:
        yield f"{workload}: sets replicas, which undoes the autoscaler's number at every apply"
    if not 2 <= scaler["minReplicas"] < scaler["maxReplicas"]:
        yield f"{workload}: the autoscaler has no room, or no second replica"
    budgets = [b["spec"] for b in shop.all("PodDisruptionBudget") if selects(b["spec"]["selector"], workload.labels)]
    if len(budgets) != 1:
        return (yield f"{workload}: {len(budgets)} disruption budgets select it, and with two no eviction works")
    lost, kept = budgets[0].get("maxUnavailable"), budgets[0].get("minAvailable")
    if not (lost and lost < scaler["minReplicas"]) and not (kept and kept < scaler["minReplicas"]):
        yield f"{workload}: the budget forbids every eviction, or allows losing all replicas"
    if not workload.pod.get("topologySpreadConstraints"):
        yield f"{workload}: is not spread over nodes"
    for spread in workload.pod.get("topologySpreadConstraints", []):
        if not selects(spread["labelSelector"], workload.labels):
            yield f"{workload}: its spread over {spread['topologyKey']} counts other Pods than its own"


def ends_in_time(shop, workload):
    """preStop outlasts the news of the end; the Pod's grace covers preStop and what the program takes by itself."""
    env = shop.effective(workload)
    sleep = workload.pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    # And one for who comes last: crates/service/src/lifecycle.rs.
    delay, own = int(env.get("SHUTDOWN_DELAY_SECONDS", 0)), int(env.get("SHUTDOWN_GRACE_SECONDS", 0)) + 1
    if workload.app == "edge":
        template = (shop.root / "docker/edge/nginx.conf.template").read_text()
        own = int(re.search(r"worker_shutdown_timeout (\d+)s;", template)[1])
    if sleep + delay < NAMES_LAST + 2:
        yield f"{workload}: ends {sleep + delay} s after it was told to, before everybody has heard"
    if grace < sleep + delay + own + 5:
        yield f"{workload}: is killed after {grace} s, but takes up to {sleep} + {delay} + {own}"


def configured(shop, workload):
    """Exactly the settings that the service has, and all that it requires."""
    known, env = shop.settings[workload.app], shop.env(workload)
    values = [value for value in env.values() if value]
    for name in env:
        expanded = any(f"$({name})" in value for value in values)
        if name not in known and name.removesuffix("_FILE") not in known and not expanded and not name.startswith("OTEL_"):
            yield f"{workload}: {name} is no setting of {workload.app}"
    for name, default in known.items():
        if default is None and name not in env and f"{name}_FILE" not in env:
            yield f"{workload}: lacks the setting {name}"
    for container in workload.containers:
        before = set(shop.env_from(container))
        for variable in container.get("env", []):
            for name in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                if name not in before:
                    yield f"{workload}: $({name}) is not defined before {variable['name']}"
            before.add(variable["name"])
    limit = mebibytes(workload.pod["containers"][0]["resources"]["limits"].get("memory", "0Mi"))
    if workload.app == "order" and BUSY_ORDER + LISTENER * int(shop.effective(workload)["EVENT_LISTENERS"]) > limit:
        yield f"{workload}: {limit} MiB are too little for EVENT_LISTENERS"
    if workload.app == "payment-sandbox":
        container = workload.pod["containers"][0]
        if (env.get("HTTP_ADDR") or "").rpartition(":") != ("0.0.0.0", ":", str(container["ports"][0]["containerPort"])):
            yield f"{workload}: does not listen on its port for others"
        if not any((env.get("DATA_DIR") or "").startswith(m["mountPath"] + "/") for m in container.get("volumeMounts", [])):
            yield f"{workload}: keeps its ledger on no volume"
    if workload.app == "user":
        if IDLE_USER + HASH * int(env.get("PASSWORD_HASHES_AT_ONCE") or 99) > limit:
            yield f"{workload}: {limit} MiB are too little for PASSWORD_HASHES_AT_ONCE"
    if workload.app == "user" and "SIGNING_KEY_ENCRYPTION_KEY" not in env and "SIGNING_KEY_ENCRYPTION_KEY_FILE" not in env:
        yield f"{workload}: signing keys are stored plain"
    for name, what in [("DEMO_ACCOUNTS", "accounts"), ("DEMO_DATA", "data")]:
        # Whatever is not plainly `false`: the services take some more words for `true`.
        if shop.env(workload).get(name, "false") != "false" and shop.all("ExternalSecret"):
            yield f"{workload}: demo {what} in production"
    if shop.env(workload).get("PAYMENT_SANDBOX") == "true" and ("StatefulSet", "payment-sandbox") not in shop.by_name:
        yield f"{workload}: test cards without the payment sandbox"


def one_proxy(shop):
    """Edges behind one Gateway or Ingress believe the same proxy, or all clients of one of them look alike."""
    if shop.all("Gateway") or shop.all("Ingress"):
        edges = {shop.env(w)["EDGE_TRUSTED_PROXY"] for w in shop.workloads if w.app == "edge"}
        if len(edges) != 1 or edges == {"unix:"}:
            yield f"the edges believe different proxies, or none: {', '.join(sorted(edges))}"


def asked_for_by_secret(shop):
    """A header that anybody can read here must not lead to a canary."""
    for route in shop.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if any(match.get("headers") or match.get("queryParams") for match in rule.get("matches", [])):
                yield f"HTTPRoute/{route['metadata']['name']}: whoever asks gets the canary, without a secret"
    for ingress in shop.all("Ingress"):
        for name in ingress["metadata"].get("annotations", {}):
            if name.startswith(("nginx.ingress.kubernetes.io/canary-by-header", "nginx.ingress.kubernetes.io/canary-by-cookie")):
                yield f"Ingress/{ingress['metadata']['name']}: {name} lets whoever asks get the canary, without a secret"
    for workload in shop.workloads:
        if workload.app == "edge" and shop.env(workload).get("CANARY_KEY"):
            yield f"{workload}: CANARY_KEY is written in the manifest"


def edge_template(shop):
    """Exactly the names that the edge's configuration wants have a value."""
    template = (shop.root / "docker/edge/nginx.conf.template").read_text()
    text = "\n".join(line for line in template.splitlines() if not line.lstrip().startswith("#"))
    wanted = set(re.findall(r"\$\{(\w+)\}", text))
    for workload in shop.workloads:
        if workload.app == "edge":
            given = shop.env(workload).keys()
            for name in sorted(wanted - given):
                yield f"{workload}: nginx.conf.template wants {name}"
            for name in sorted(given - wanted):
                yield f"{workload}: nginx.conf.template has no {name}"
            if not (shop.env(workload).get("EDGE_WORKERS") or "").isdecimal():
                yield f"{workload}: as many workers as the node has cores may not fit under the memory limit"


def namespace_and_rights(shop):
    labels = [n["metadata"].get("labels", {}) for n in shop.all("Namespace") if n["metadata"]["name"] == "dockside"]
    if [n.get("pod-security.kubernetes.io/enforce") for n in labels] != ["restricted"]:
        yield "the namespace does not enforce Pod Security `restricted`"
    if shop.all("ClusterRole") or shop.all("ClusterRoleBinding"):
        yield "something has rights in the whole cluster"
    for role in shop.all("Role"):
        for rule in role["rules"]:
            if (role["metadata"]["name"], rule.get("resources"), rule["verbs"]) != (TALKS_TO_KUBERNETES, ["secrets"], ["create"]):
                yield f"Role/{role['metadata']['name']}: allows more than to create Secrets"
    for thing in shop.objects:
        # A Gateway has a namespace of its own, with its certificate.
        own = thing["kind"] == "Gateway" or (thing["kind"], thing["metadata"]["name"]) == ("Certificate", "shop")
        if thing["kind"] != "Namespace" and not own and thing["metadata"].get("namespace") != "dockside":
            yield f"{thing['kind']}/{thing['metadata']['name']}: is not in the namespace"


def secrets(shop):
    """None is committed; those referred to have the fields that `make-secrets.sh` makes."""
    for secret in shop.all("Secret"):
        yield f"Secret/{secret['metadata']['name']}: is committed"
    script = (shop.root / "k8s/overlays/local/make-secrets.sh").read_text()
    made = set(re.findall(r"\b(?:[a-z]+-)+(?:password|key|secret)\b", script))
    for workload in shop.workloads:
        for container in workload.containers:
            for variable in container.get("env", []):
                ref = variable.get("valueFrom", {}).get("secretKeyRef")
                if ref and ref["name"] == "dockside" and ref["key"] not in made:
                    yield f"{workload}: nothing makes the field {ref['key']} of the Secret"
                if re.search(r"PASSWORD$|SECRET|_KEY$", variable["name"]) and variable.get("value"):
                    yield f"{workload}: {variable['name']} is written in the manifest"


def pooled(shop):
    """A pooler works as the services need it, and they know that it is there, or that it is not."""
    poolers = {pooler["metadata"]["name"]: pooler["spec"] for pooler in shop.all("Pooler")}
    for name, spec in poolers.items():
        if (spec["type"], spec["pgbouncer"]["poolMode"]) != ("rw", "transaction"):
            yield f"Pooler/{name}: is not for writing, or not by transaction"
        if int(spec["pgbouncer"]["parameters"].get("max_prepared_statements", 0)) < 1:
            yield f"Pooler/{name}: keeps no prepared statements"
        image = next(c["image"] for c in spec["template"]["spec"]["containers"] if c["name"] == "pgbouncer")
        version = re.search(r":(\d+)\.(\d+)[^/]*$", image)
        # Where prepared statements came with: https://www.pgbouncer.org/changelog.html#pgbouncer-121x
        if not version or (int(version[1]), int(version[2])) < (1, 21):
            yield f"Pooler/{name}: {image} is not of 1.21 or later"
    for workload in shop.workloads:
        if workload.app in SERVICES:
            env = shop.env(workload)
            host, direct = (urlsplit((env.get(n) or "").replace("$(PASSWORD)", "x")).hostname for n in ("DATABASE_URL", "DATABASE_DIRECT_URL"))
            if (host in poolers) != (env.get("DATABASE_POOLER") == "transaction"):
                yield f"{workload}: DATABASE_POOLER does not go with DATABASE_URL"
            if host in poolers and (direct is None or direct in poolers):
                yield f"{workload}: DATABASE_DIRECT_URL does not go past the pooler"


def connections_fit(shop):
    """The database takes the connections of as many replicas as the autoscalers may start during an update."""
    wanted, clients = 0, 0
    for workload in shop.workloads:
        scaler = shop.by_name.get(("HorizontalPodAutoscaler", workload.name))
        if workload.app in SERVICES and scaler:
            # One more for its readiness, and one while it migrates; order's for LISTEN is there then no more.
            replicas, pool = scaler["spec"]["maxReplicas"] + 1, int(shop.effective(workload)["DATABASE_CONNECTIONS"])
            through = shop.env(workload).get("DATABASE_POOLER") == "transaction"
            clients += replicas * (pool + 1) if through else 0
            wanted += replicas * (1 if through else pool + 2)
    for pooler in shop.all("Pooler"):
        parameters = pooler["spec"]["pgbouncer"]["parameters"]
        # A pool for each role, in each instance; and the operator's own look at passwords.
        wanted += pooler["spec"]["instances"] * (len(SERVICES) * int(parameters["default_pool_size"]) + 1)
        if clients > int(parameters["max_client_conn"]):
            yield f"the services may open {clients} connections, one instance of the pooler takes {parameters['max_client_conn']}"
    limits = [c["spec"]["postgresql"]["parameters"]["max_connections"] for c in shop.all("Cluster")]
    for workload in shop.workloads:
        if workload.app == "postgres":
            limits += re.findall(r"max_connections=(\d+)", " ".join(workload.pod["containers"][0].get("args", [])))
    if len(limits) != 1 or wanted > int(limits[0]) - 10:
        yield f"the services may open {wanted} connections, PostgreSQL takes {', '.join(limits) or 'an unknown number'}"
