//! The scripts of k8s/overlays/local in the images, and under the restrictions, of their Pods: one makes the Secret at a
//! stand-in for the API server, RabbitMQ starts with what the other makes of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machine::signals;
use serde_json::{Value, json};

use crate::shop::{Shop, docker, finish, wait};

const SERVICES: [&str; 3] = ["user", "product", "order"];

/// As in the manifests: not root, a read-only root, no capabilities. Nobody else is reached.
const RESTRICTED: [&str; 7] = [
    "--network=none",
    "--user=999:999",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--entrypoint=bash",
    "--tmpfs=/tmp:uid=999,gid=999",
];

/// Takes one request, answers that the Secret was made, and prints the request.
const API_SERVER: &str = "
account=/var/run/secrets/kubernetes.io/serviceaccount
cd /work
printf a-token >$account/token
printf dockside >$account/namespace
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=kube-apiserver \\
  -addext subjectAltName=IP:127.0.0.1 -keyout key -out $account/ca.crt 2>/dev/null
touch request
{
    timeout 20 bash -c 'until grep -q \"}}$\" request; do sleep 0.05; done'
    printf 'HTTP/1.1 201 Created\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'
} | openssl s_server -quiet -accept 127.0.0.1:6443 -cert $account/ca.crt -key key -naccept 1 >request 2>/dev/null &
bash /scripts/make-secrets.sh >&2
wait
cat request
";

pub fn run(shop: &Shop) -> Result<String> {
    let overlay = shop.layout.root.join("k8s/overlays/local");
    let secret = secret(&overlay)?;
    let passwords = SERVICES.map(|service| decoded(&secret["data"][format!("{service}-password")]));
    let passwords: Vec<String> = passwords.into_iter().collect::<Result<_>>()?;
    let name = format!("{}-cluster-rabbitmq", shop.project);
    let remove = || docker(&["rm", "--force", "--volumes", &name]);
    remove()?;
    let checked =
        start_rabbitmq(&overlay, &name, &passwords).and_then(|()| check_rabbitmq(&name, &passwords));
    remove()?;
    checked?;
    let fields = secret["data"].as_object().map_or(0, serde_json::Map::len);
    Ok(format!("a Secret of {fields} fields was made; RabbitMQ runs with the three accounts in it"))
}

/// What make-secrets.sh sends in PostgreSQL's image.
fn secret(overlay: &Path) -> Result<Value> {
    let script = mounted(overlay, "make-secrets.sh");
    let own = [
        "--memory=64m",
        "--tmpfs=/work:uid=999,gid=999,size=1m",
        "--tmpfs=/var/run/secrets/kubernetes.io/serviceaccount:uid=999,gid=999",
        "--env=TMPDIR=/work",
        "--env=KUBERNETES_SERVICE_HOST=127.0.0.1",
        "--env=KUBERNETES_SERVICE_PORT=6443",
        &script,
        "postgres:17",
        "-euc",
        API_SERVER,
    ];
    let request = docker(&[["run", "--rm"].as_slice(), &RESTRICTED, &own].concat())?;
    let (head, body) = request.split_once("\r\n\r\n").context("no HTTP request")?;
    ensure!(
        head.starts_with("POST /api/v1/namespaces/dockside/secrets HTTP/1.1\r\n"),
        "the request is {head}"
    );
    let secret: Value = serde_json::from_str(body).context("the request's body is no JSON")?;
    ensure!(secret["kind"] == "Secret" && secret["metadata"]["name"] == "dockside", "sent was {secret}");
    Ok(secret)
}

fn start_rabbitmq(overlay: &Path, name: &str, passwords: &[String]) -> Result<()> {
    let script = mounted(overlay, "rabbitmq.sh");
    let variables = SERVICES.iter().zip(passwords);
    let variables: Vec<String> =
        variables.map(|(s, password)| format!("--env={}_PASSWORD={password}", s.to_uppercase())).collect();
    let own = [
        "--name",
        name,
        "--memory=512m",
        "--tmpfs=/etc/rabbitmq:uid=999,gid=999",
        "--tmpfs=/var/lib/rabbitmq:uid=999,gid=999,mode=700",
        "--tmpfs=/var/log/rabbitmq:uid=999,gid=999",
        "--env=RABBITMQ_NODENAME=rabbit@localhost",
        "--env=RABBITMQ_LOGS=-",
        "--env=RABBITMQ_CONFIG_FILES=/etc/rabbitmq/conf.d",
        "--env=RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia",
        "--env=RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none +Q 65536",
        &script,
    ];
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let start = "bash /scripts/rabbitmq.sh; exec docker-entrypoint.sh rabbitmq-server";
    let image = ["rabbitmq:4", "-euc", start];
    docker(&[["run", "--detach"].as_slice(), &RESTRICTED, &own, &variables, &image].concat())?;
    wait(Duration::from_secs(60), || {
        let running = docker(&["inspect", "--format", "{{.State.Running}}", name])? == "true";
        ensure!(running, "RabbitMQ ended: {}", docker(&["logs", "--tail=20", name])?);
        Ok(docker(&["exec", name, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5672"]).is_ok())
    })
    .context("waiting until RabbitMQ listens")
}

fn check_rabbitmq(name: &str, passwords: &[String]) -> Result<()> {
    let ctl = |args: &[&str]| docker(&[["exec", name, "rabbitmqctl", "--quiet"].as_slice(), args].concat());
    let listed = |what: &str, field: &str| -> Result<Vec<Value>> {
        let mut rows: Vec<Value> = serde_json::from_str(&ctl(&["--formatter=json", what])?)?;
        rows.sort_by_key(|row| row[field].to_string());
        Ok(rows)
    };
    let queues = |user: &str| {
        let both = format!("^dockside[.](events$|{user}([.]|$))");
        json!({"user": user, "configure": format!("^dockside[.]{user}([.]|$)"), "write": both, "read": both})
    };
    let permissions = listed("list_permissions", "user")?;
    ensure!(permissions == ["order", "product", "user"].map(queues), "the permissions are {permissions:?}");
    let events = |user: &str| {
        let written = format!("^{user}[.]");
        let read = if user == "order" { "^(product|user)[.]" } else { "^order[.]" };
        json!({"user": user, "exchange": "dockside.events", "write": written, "read": read})
    };
    let topics = listed("list_topic_permissions", "user")?;
    ensure!(topics == ["order", "product", "user"].map(events), "the topic permissions are {topics:?}");
    let users = listed("list_users", "user")?;
    let nobody_special = |user: &str| json!({"user": user, "tags": []});
    ensure!(users == ["order", "product", "user"].map(nobody_special), "the users are {users:?}");
    for (service, password) in SERVICES.iter().zip(passwords) {
        ctl(&["authenticate_user", service, password])?;
    }
    ensure!(ctl(&["authenticate_user", "order", &passwords[0]]).is_err(), "order may use user's password");
    let wal = ctl(&["eval", "application:get_env(ra, wal_max_size_bytes)."])?;
    ensure!(wal == "{ok,32000000}", "the log's limit is {wal}");
    Ok(())
}

fn mounted(overlay: &Path, script: &str) -> String {
    format!("--volume={}:/scripts/{script}:ro", overlay.join(script).display())
}

/// As Kubernetes does for a Pod.
fn decoded(value: &Value) -> Result<String> {
    let text = value.as_str().context("a field of the Secret is missing")?;
    finish(Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -d", text]), signals::stop_asked)
}
