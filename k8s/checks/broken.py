"""Breaks overlays, one thing at a time: each must be noticed, or the checks check nothing."""

import copy


def unnoticed(objects, problems, breaks):
    """What was broken without a new problem being found, and how many things were broken."""
    known, missed = set(problems(objects)), []
    for name, break_it in breaks.items():
        broken = copy.deepcopy(objects)
        break_it({(o["kind"], plain(o)): o for o in broken}, broken)
        if broken == objects:
            missed.append(f"{name}: nothing was changed")
        elif not set(problems(broken)) - known:
            missed.append(f"{name}: not noticed")
    return missed, len(breaks)


def plain(thing):
    """The name without the hash of a ConfigMap."""
    name = thing["metadata"]["name"]
    return name.rpartition("-")[0] if thing["kind"] == "ConfigMap" else name


def pod(by_name, kind="Deployment", name="order"):
    spec = by_name[kind, name]["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]


def container(by_name, kind="Deployment", name="order"):
    return pod(by_name, kind, name)["containers"][0]


def variable(by_name, wanted, name="order", kind="Deployment"):
    return next(v for v in container(by_name, kind, name)["env"] if v["name"] == wanted)


def replace(variable, old, new):
    variable["value"] = variable["value"].replace(old, new)


def sandbox(by_name, wanted="LOG_FORMAT"):
    env = container(by_name, "StatefulSet", "payment-sandbox")["env"]
    return next(v for v in env if v["name"] == wanted)


def reconcile(by_name):
    return by_name["CronJob", "reconcile"]["spec"]


def policy(by_name, name):
    return by_name["NetworkPolicy", name]["spec"]


LOCAL = {
    # Pods
    "a field that does not exist": lambda n, _: pod(n).update(restartpolicy="Always"),
    "a field of the wrong type": lambda n, _: pod(n).update(terminationGracePeriodSeconds="long"),
    "root": lambda n, _: pod(n)["securityContext"].update(runAsUser=0),
    "no runAsNonRoot": lambda n, _: pod(n)["securityContext"].pop("runAsNonRoot"),
    "no seccomp": lambda n, _: pod(n, "StatefulSet", "postgres")["securityContext"].pop("seccompProfile"),
    "a capability": lambda n, _: container(n)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    "a writable root": lambda n, _: container(n, name="edge")["securityContext"].update(readOnlyRootFilesystem=False),
    "more privileges": lambda n, _: container(n)["securityContext"].pop("allowPrivilegeEscalation"),
    "privileges of an init container": lambda n, _: pod(n, "StatefulSet", "rabbitmq")["initContainers"][0].pop("securityContext"),
    "the host's network": lambda n, _: pod(n).update(hostNetwork=True),
    "a token": lambda n, _: pod(n).pop("automountServiceAccountToken"),
    "the default account": lambda n, _: pod(n).pop("serviceAccountName"),
    "no memory limit": lambda n, _: container(n)["resources"]["limits"].pop("memory"),
    "no requests": lambda n, _: container(n, "Job", "make-secrets")["resources"].pop("requests"),
    "latest": lambda n, _: container(n).update(image="dockside/order:latest"),
    "no tag": lambda n, _: container(n).update(image="registry.example.com:5000/order"),
    # Life
    "no startup probe": lambda n, _: container(n).pop("startupProbe"),
    "liveness that depends on the database": lambda n, _: container(n)["livenessProbe"]["httpGet"].update(path="/readyz"),
    "no preStop": lambda n, _: container(n).pop("lifecycle"),
    "too little grace": lambda n, _: pod(n).update(terminationGracePeriodSeconds=30),
    "a longer shutdown": lambda n, _: n["ConfigMap", "user"]["data"].update(SHUTDOWN_GRACE_SECONDS="60"),
    "an update with a gap": lambda n, _: n["Deployment", "user"]["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    # The comparison
    "no comparison": lambda n, all: all.remove(n["CronJob", "reconcile"]),
    "a comparison that rests": lambda n, _: reconcile(n).update(suspend=True),
    "a comparison each night": lambda n, _: reconcile(n).update(schedule="17 3 * * *"),
    "comparisons side by side": lambda n, _: reconcile(n).update(concurrencyPolicy="Allow"),
    "a comparison without an end": lambda n, _: reconcile(n)["jobTemplate"]["spec"].pop("activeDeadlineSeconds"),
    "a comparison that fails late": lambda n, _: reconcile(n)["jobTemplate"]["spec"].pop("backoffLimit"),
    "a failure that is not kept": lambda n, _: reconcile(n).update(failedJobsHistoryLimit=0),
    "a failure without its log": lambda n, _: pod(n, "CronJob", "reconcile").update(restartPolicy="OnFailure"),
    "a comparison that mends": lambda n, _: container(n, "CronJob", "reconcile")["args"].append("--mend"),
    "a comparison as root": lambda n, _: pod(n, "CronJob", "reconcile")["securityContext"].update(runAsUser=0),
    "a comparison with a token": lambda n, _: pod(n, "CronJob", "reconcile").pop("automountServiceAccountToken"),
    "a comparison that can write to its image": lambda n, _: container(n, "CronJob", "reconcile")["securityContext"].pop("readOnlyRootFilesystem"),
    "a comparison without a limit": lambda n, _: container(n, "CronJob", "reconcile")["resources"]["limits"].pop("memory"),
    "a comparison by a service's role": lambda n, _: variable(n, "DATABASE_URL", "reconcile", "CronJob").update(value="postgres://order_service:$(PASSWORD)@postgres:5432/dockside"),
    "a comparison without the provider": lambda n, _: container(n, "CronJob", "reconcile")["env"].remove(variable(n, "PAYMENT_URL", "reconcile", "CronJob")),
    "a comparison with a provider of its own": lambda n, _: variable(n, "PAYMENT_URL", "reconcile", "CronJob")["valueFrom"]["configMapKeyRef"].update(key="JWKS_URL"),
    "a comparison that may look at the queues": lambda n, _: policy(n, "reconcile")["egress"].append({"to": [{"podSelector": {"matchLabels": {"app": "rabbitmq"}}}], "ports": [{"protocol": "TCP", "port": 5672}]}),
    "a comparison that may not reach the provider": lambda n, all: all.remove(n["NetworkPolicy", "reconcile-payment"]),
    "a database that takes no comparison": lambda n, _: policy(n, "postgres")["ingress"][0]["from"].pop(),
    # Scale
    "no autoscaler": lambda n, all: all.remove(n["HorizontalPodAutoscaler", "product"]),
    "one replica": lambda n, _: n["HorizontalPodAutoscaler", "product"]["spec"].update(minReplicas=1),
    "replicas beside the autoscaler": lambda n, _: n["Deployment", "product"]["spec"].update(replicas=3),
    "no disruption budget": lambda n, all: all.remove(n["PodDisruptionBudget", "user"]),
    "a budget that allows nothing": lambda n, _: n["PodDisruptionBudget", "user"]["spec"].update(maxUnavailable=0),
    "a budget for nobody": lambda n, _: n["PodDisruptionBudget", "user"]["spec"]["selector"]["matchLabels"].update(app="x"),
    "a spread that counts nobody": lambda n, _: pod(n)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(app="x"),
    "more replicas than connections": lambda n, _: n["HorizontalPodAutoscaler", "order"]["spec"].update(maxReplicas=40),
    # Settings
    "a setting that does not exist": lambda n, _: n["ConfigMap", "order"]["data"].update(PAYMENT_ADDRESS="x"),
    "a value used before it is known": lambda n, _: container(n)["env"].reverse(),
    "a required setting left out": lambda n, _: container(n)["env"].remove(variable(n, "SERVICE_KEY")),
    "a field of the Secret that nothing makes": lambda n, _: variable(n, "PASSWORD")["valueFrom"]["secretKeyRef"].update(key="order-passwort"),
    "a password in the manifest": lambda n, all: container(n)["env"].append({"name": "DB_PASSWORD", "value": "x"}),
    "a committed Secret": lambda _, all: all.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "dockside"}}),
    "too many hashes at once": lambda n, _: n["ConfigMap", "user"]["data"].update(PASSWORD_HASHES_AT_ONCE="3"),
    "a setting that the payment sandbox does not have": lambda n, _: sandbox(n).update(name="SLOW_SECONDS"),
    "the payment sandbox's known key": lambda n, _: sandbox(n, "SECRET_KEY").update(name="SLOW_MILLIS", value="1"),
    "a payment sandbox for itself alone": lambda n, _: sandbox(n, "HTTP_ADDR").update(value="127.0.0.1:8090"),
    "a ledger that ends with its Pod": lambda n, _: sandbox(n, "DATA_DIR").update(value="/ledger"),
    "too many listeners": lambda n, _: n["ConfigMap", "order"]["data"].pop("EVENT_LISTENERS"),
    "the edge's setting left out": lambda n, _: n["ConfigMap", "edge"]["data"].pop("EDGE_RATE"),
    "a worker of the edge for each core": lambda n, _: n["ConfigMap", "edge"]["data"].update(EDGE_WORKERS="auto"),
    "a setting that the edge does not have": lambda n, _: n["ConfigMap", "edge"]["data"].update(ORDER_SHARE=""),
    "an edge without the storefront's key": lambda n, _: container(n, name="edge").pop("env"),
    "signing keys in plain text": lambda n, _: container(n, name="user")["env"].remove(variable(n, "SIGNING_KEY_ENCRYPTION_KEY", "user")),
    "the storefront's key in the manifest": lambda n, _: variable(n, "STOREFRONT_KEY", "storefront").update(value="x"),
    "a key of the cookies that nothing makes": lambda n, _: variable(n, "COOKIE_KEY", "storefront")["valueFrom"]["secretKeyRef"].update(key="cookies-key"),
    "a namespace that enforces nothing": lambda n, _: n["Namespace", "dockside"]["metadata"].pop("labels"),
    "a right to read Secrets": lambda n, _: n["Role", "make-secrets"]["rules"][0]["verbs"].append("get"),
    # Network
    "a setting that leads nowhere": lambda n, _: n["ConfigMap", "order"]["data"].update(PRODUCT_GRPC="http://produkt:9082"),
    "a setting with a wrong port": lambda n, _: n["ConfigMap", "order"]["data"].update(PRODUCT_GRPC="http://product-grpc:9083"),
    "a connection without a policy": lambda n, _: n["ConfigMap", "user"]["data"].update(OTEL_EXPORTER_OTLP_ENDPOINT="http://order:8083"),
    "a canary that leads nowhere": lambda n, _: n["ConfigMap", "edge"]["data"].update(ORDER_CANARY="order-canary:8083"),
    "a headless database": lambda n, _: n["Service", "postgres"]["spec"].update(clusterIP="None"),
    "a headless broker": lambda n, _: n["Service", "rabbitmq"]["spec"].update(clusterIP="None"),
    "a headless card provider": lambda n, _: n["Service", "payment-sandbox"]["spec"].update(clusterIP="None"),
    "webhooks to a headless name": lambda n, _: n["Service", "order"]["spec"].update(clusterIP="None"),
    "a Service for another port": lambda n, _: n["Service", "product"]["spec"]["ports"][0].update(targetPort="admin"),
    "no way out": lambda n, _: policy(n, "order")["egress"].pop(0),
    "no way in": lambda n, _: policy(n, "product")["ingress"].pop(1),
    "a way out that nobody needs": lambda n, _: policy(n, "user")["egress"].append({"to": [{"podSelector": {"matchLabels": {"app": "order"}}}], "ports": [{"protocol": "TCP", "port": 8083}]}),
    "a way out to everywhere": lambda n, _: policy(n, "user")["egress"].append({}),
    "a way in from everywhere": lambda n, _: policy(n, "user")["ingress"].append({"ports": [{"protocol": "TCP", "port": 8081}]}),
    "a way to all ports": lambda n, _: policy(n, "postgres")["ingress"][0].pop("ports"),
    "a way for all of UDP": lambda n, _: policy(n, "postgres")["ingress"][0]["ports"].append({"protocol": "UDP"}),
    "a range of ports": lambda n, _: policy(n, "rabbitmq")["ingress"][0]["ports"][0].update(endPort=6000),
    "another namespace's Pods": lambda n, _: policy(n, "rabbitmq")["ingress"][0]["from"][0].update(namespaceSelector={}),
    "UDP for the maker of Secrets": lambda n, _: policy(n, "make-secrets")["egress"][0]["ports"].append({"protocol": "UDP"}),
    "the admin port": lambda n, _: policy(n, "user")["ingress"][0]["ports"].append({"protocol": "TCP", "port": 7081}),
    "a storefront that reaches a service": lambda n, _: policy(n, "storefront")["egress"].append({"to": [{"podSelector": {"matchLabels": {"app": "order"}}}], "ports": [{"protocol": "TCP", "port": 8083}]}),
    "a storefront that everybody reaches": lambda n, _: policy(n, "storefront")["ingress"][0].pop("from"),
    "a storefront past the edge": lambda n, _: n["ConfigMap", "storefront"]["data"].update(API_URL="http://order:8083"),
    "an edge that may not reach the storefront": lambda n, _: policy(n, "edge")["egress"].pop(),
    "no denial by default": lambda n, all: all.remove(n["NetworkPolicy", "default-deny"]),
    "no denial of what goes out": lambda n, _: policy(n, "default-deny").update(policyTypes=["Ingress"]),
    "a policy that opens all Pods": lambda n, _: policy(n, "default-deny").update(ingress=[{}]),
    "names asked of anybody": lambda n, _: policy(n, "names")["egress"][0].pop("to"),
}


def pooler(by_name):
    return by_name["Pooler", "pooler"]["spec"]


# Of the overlay with a pooler, which is production's.
POOLED = {
    "a comparison through the pooler": lambda n, _: variable(n, "DATABASE_URL", "reconcile", "CronJob").update(value="postgres://reconcile:$(PASSWORD)@pooler:5432/dockside"),
    # Encryption
    "services that may speak plain": lambda n, _: n["ConfigMap", "product"]["data"].update(ALLOW_PLAINTEXT="true"),
    "a database whose certificate nobody checks": lambda n, _: replace(variable(n, "DATABASE_URL"), "verify-full", "require"),
    "a way past the pooler whose certificate nobody checks": lambda n, _: replace(variable(n, "DATABASE_DIRECT_URL"), "verify-full", "verify-ca"),
    "a database of an authority that is not there": lambda n, _: replace(variable(n, "DATABASE_URL"), "postgres.crt", "database.crt"),
    "a comparison in the clear": lambda n, _: replace(variable(n, "DATABASE_URL", "reconcile", "CronJob"), "verify-full", "prefer"),
    "a backup in the clear": lambda n, _: variable(n, "PGSSLMODE", "backup", "CronJob").update(value="prefer"),
    "a plain broker": lambda n, _: replace(variable(n, "AMQP_URL"), "amqps:", "amqp:"),
    "a broker of an authority that is not there": lambda n, _: replace(variable(n, "AMQP_URL"), "ca.crt", "rabbitmq.crt"),
    "a database that takes plain connections": lambda n, _: n["Cluster", "postgres"]["spec"]["postgresql"].pop("pg_hba"),
    "a broker that takes plain connections": lambda n, _: n["RabbitmqCluster", "rabbitmq"]["spec"]["tls"].pop("disableNonTLSListeners"),
    "a broker without a certificate": lambda n, all: all.remove(n["Certificate", "rabbitmq"]),
    "a plain call of another service": lambda n, _: replace(variable(n, "PRODUCT_GRPC"), "https:", "http:"),
    "keys that are fetched in the clear": lambda n, _: container(n)["env"].remove(variable(n, "JWKS_URL")),
    "a service without a certificate": lambda n, all: all.remove(n["Certificate", "product"]),
    "a certificate for another name": lambda n, _: n["Certificate", "user"]["spec"].update(dnsNames=["user-grpc"]),
    "a certificate that clients can't show": lambda n, _: n["Certificate", "order"]["spec"].update(usages=["server auth"]),
    "a port for gRPC that takes anybody": lambda n, _: container(n, name="user")["env"].remove(variable(n, "TLS_DIR", "user")),
    # The door
    "a load balancer past the Gateway": lambda n, _: n["Service", "edge"]["spec"].update(type="LoadBalancer"),
    "no door": lambda n, all: [all.remove(n[kind, name]) for kind, name in [("Gateway", "dockside"), ("HTTPRoute", "edge"), ("HTTPRoute", "to-https")]],
    "a Gateway that serves plain": lambda n, _: n["HTTPRoute", "edge"]["spec"]["parentRefs"][0].pop("sectionName"),
    "a plain door that leads in": lambda n, _: n["HTTPRoute", "to-https"]["spec"]["rules"][0].update(filters=[], backendRefs=[{"name": "edge", "port": 80}]),
    "no HSTS": lambda n, _: n["HTTPRoute", "edge"]["spec"]["rules"][0].pop("filters"),
    "a door without a certificate": lambda n, all: all.remove(n["Certificate", "shop"]),
    "a door with a certificate for another": lambda n, _: n["Certificate", "shop"]["spec"].update(dnsNames=["www.example.com"]),
    "a pooler by session": lambda n, _: pooler(n)["pgbouncer"].update(poolMode="session"),
    "a pooler of standbys": lambda n, _: pooler(n).update(type="ro"),
    "a pooler without prepared statements": lambda n, _: pooler(n)["pgbouncer"]["parameters"].update(max_prepared_statements="0"),
    "a pooler that is too old": lambda n, _: pooler(n)["template"]["spec"]["containers"][0].update(image="pgbouncer:1.18"),
    "a pooler of any version": lambda n, _: pooler(n)["template"]["spec"]["containers"][0].update(image="pgbouncer:latest"),
    "a pooler of another cluster": lambda n, _: pooler(n)["cluster"].update(name="mysql"),
    "a pooler that takes too few": lambda n, _: pooler(n)["pgbouncer"]["parameters"].update(max_client_conn="100"),
    "a pooler that opens too many": lambda n, _: pooler(n)["pgbouncer"]["parameters"].update(default_pool_size="100"),
    "a headless pooler": lambda n, _: pooler(n).update(serviceTemplate={"spec": {"clusterIP": "None"}}),
    "a headless cluster": lambda n, _: n["Cluster", "postgres"]["spec"]["managed"]["services"]["additional"][0]["serviceTemplate"].update(spec={"clusterIP": "None"}),
    "a service that does not know of the pooler": lambda n, _: variable(n, "DATABASE_POOLER").update(value="none"),
    "a service that only thinks that there is one": lambda n, _: variable(n, "DATABASE_URL").update(value="postgres://order_service:$(PASSWORD)@postgres:5432/dockside"),
    "migrations through the pooler": lambda n, _: variable(n, "DATABASE_DIRECT_URL").update(value="postgres://order_service:$(PASSWORD)@pooler:5432/dockside"),
    "no address past the pooler": lambda n, _: container(n)["env"].remove(variable(n, "DATABASE_DIRECT_URL")),
    "a pooler that may not reach the database": lambda n, _: policy(n, "pooler")["egress"].pop(0),
    "a pooler that takes anybody": lambda n, _: policy(n, "pooler")["ingress"][0].pop("from"),
    "demo accounts in production": lambda n, _: n["ConfigMap", "user"]["data"].update(DEMO_ACCOUNTS="true"),
    "demo data in production": lambda n, _: n["ConfigMap", "product"]["data"].update(DEMO_DATA="true"),
    # No other problem comes with it: the local overlay has the sandbox, and without it more would be wrong.
    "test cards without the payment sandbox": lambda n, _: n["ConfigMap", "storefront"]["data"].update(PAYMENT_SANDBOX="true"),
}

# Of an overlay with a canary.
ROUTED = {
    "a canary for whoever asks": lambda n, _: n["HTTPRoute", "edge"]["spec"]["rules"][0].update(matches=[{"headers": [{"name": "X-Canary", "value": "order"}]}]),
    "a canary's key in the manifest": lambda n, _: n["ConfigMap", "edge"]["data"].update(CANARY_KEY="x"),
    "edges that believe different proxies": lambda n, _: n["ConfigMap", "edge"]["data"].update(EDGE_TRUSTED_PROXY="unix:"),
}

OBSERVED = {
    "a scrape of a port that nobody opens": lambda n, _: n["ConfigMap", "prometheus"]["data"].update({"prometheus.yml": n["ConfigMap", "prometheus"]["data"]["prometheus.yml"].replace("port: 7083", "port: 7089")}),
    "a dashboard's source that is not there": lambda n, _: n["ConfigMap", "grafana"]["data"].update({"datasources.yaml": n["ConfigMap", "grafana"]["data"]["datasources.yaml"].replace("tempo:3200", "jaeger:3200")}),
    "metrics that Prometheus may not read": lambda n, all: all.remove(n["NetworkPolicy", "order-metrics"]),
    "metrics that everybody may read": lambda n, _: policy(n, "order-metrics")["ingress"].append({"ports": [{"protocol": "TCP", "port": 7083}]}),
    "a Grafana that everybody reaches": lambda n, _: policy(n, "grafana").update(policyTypes=["Ingress", "Egress"], ingress=[{"ports": [{"protocol": "TCP", "port": 3000}]}]),
    "traces without a collector": lambda n, all: all.remove(n["Service", "collector"]),
    "a Prometheus without a limit": lambda n, _: container(n, "StatefulSet", "prometheus")["resources"]["limits"].pop("memory"),
    "a Prometheus as root": lambda n, _: pod(n, "StatefulSet", "prometheus")["securityContext"].update(runAsUser=0),
    "a Loki without a probe": lambda n, _: container(n, "StatefulSet", "loki").pop("livenessProbe"),
}
