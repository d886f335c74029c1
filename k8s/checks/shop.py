"""A rendered overlay, with what several checks want to know of it."""

import re


def env_example(root):
    """The settings of each service from `.env.example`: {service: {name: default, or None where one is required}}."""
    settings, section = {}, None
    for line in (root / ".env.example").read_text().splitlines():
        if heading := re.fullmatch(r"# --- ([\w-]+) ---", line):
            section = settings.setdefault(heading[1], {})
        elif setting := re.fullmatch(r"(# )?([A-Z][A-Z0-9_]*)=(.*)", line):
            section[setting[2]] = setting[3] if setting[1] else None
    return settings


def sandbox(root):
    """The payment sandbox's settings from its source, in the same form.

    Where the default is for a laptop alone, a setting is required: an address of this machine, a relative path, a known secret.
    """
    source = (root / "tools/payment-sandbox/src/config.rs").read_text()
    settings = {"RUST_LOG": ""}
    for name, default in re.findall(r'env = "(\w+)"(?:.*default_value(?:_t)? = "?([^",)]*))?', source):
        own = default.startswith(("127.0.0.1:", ".")) or "SECRET" in name
        settings[name] = None if own else default
    return settings


def reconcile(root):
    """The operator's settings from its source, in the same form; those are required that its comparison needs."""
    source = (root / "tools/operator/src/cli.rs").read_text()
    required = {"DATABASE_URL", "PAYMENT_URL", "PAYMENT_SECRET_KEY"}
    return {name: None if name in required else "" for name in re.findall(r'env = "(\w+)"', source)}


class Shop:
    def __init__(self, objects, root):
        self.objects = objects
        self.root = root
        self.settings = {**env_example(root), "payment-sandbox": sandbox(root), "reconcile": reconcile(root)}
        self.by_name = {(o["kind"], o["metadata"]["name"]): o for o in objects}
        self.workloads = [w for w in map(Workload.of, objects) if w]

    def all(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def env(self, workload):
        """What the workload's containers get as environment: {name: text}, None for a Secret's value."""
        values = {}
        for container in workload.containers:
            values.update(self.env_from(container))
            for variable in container.get("env", []):
                values[variable["name"]] = self.value(variable)
        return values

    def value(self, variable):
        ref = variable.get("valueFrom", {}).get("configMapKeyRef")
        if ref is None:
            return variable.get("value")
        config = self.by_name.get(("ConfigMap", ref["name"]))
        return config["data"].get(ref["key"]) if config else None

    def env_from(self, container):
        """What a container gets from ConfigMaps."""
        values = {}
        for source in container.get("envFrom", []):
            config = self.by_name.get(("ConfigMap", source["configMapRef"]["name"]))
            values.update(config["data"] if config else {})
        return values

    def effective(self, workload):
        """The environment, and below it the defaults of the service's settings."""
        defaults = {k: v for k, v in self.settings.get(workload.app, {}).items() if v}
        return {**defaults, **self.env(workload)}


class Workload:
    """Anything that makes Pods."""

    def __init__(self, thing, template):
        self.thing, self.kind, self.name = thing, thing["kind"], thing["metadata"]["name"]
        self.template, self.pod = template, template["spec"]
        self.labels = template["metadata"].get("labels", {})
        self.app = self.labels.get("app")
        self.containers = self.pod.get("initContainers", []) + self.pod["containers"]
        self.serves = self.kind in ("Deployment", "StatefulSet")

    def __str__(self):
        return f"{self.kind}/{self.name}"

    @staticmethod
    def of(thing):
        spec = thing.get("spec", {})
        if thing["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if thing["kind"] not in ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"):
            return None
        return Workload(thing, spec["template"])


def selects(selector, labels):
    """Whether `matchLabels` selects these labels; an empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", selector).items())


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * (1024 if unit == "Gi" else 1)
