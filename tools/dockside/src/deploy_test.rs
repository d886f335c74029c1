//! `deploy-test`: the images and docker-compose.yml on a real engine, as a shop of its own that is removed at the end.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::{seconds, step};
use crate::layout::Layout;
use crate::net;
use crate::process::{output, pause};
use crate::smoke;

/// Compose's name for this shop, so that another one is left alone; also the images' tag.
const PROJECT: &str = "dockside-deploy-test";
const REPLACEMENTS: u32 = 3;
const LOAD_THREADS: u32 = 10;
/// Between two requests of a thread: 100 requests a second in all.
const LOAD_PAUSE_MILLIS: u64 = 100;
const CANARY_REQUESTS: u32 = 400;

struct Shop<'a> {
    layout: &'a Layout,
    port: u16,
}

pub fn run(layout: &Layout) -> Result<ExitCode> {
    let shop = Shop { layout, port: net::choose(None, &[])? };
    type Test<'a> = fn(&Shop<'a>) -> Result<String>;
    let steps: [(&str, Test); 6] = [
        ("up", Shop::up),
        ("heal", Shop::heals),
        ("replace", Shop::replaces_without_loss),
        ("canary", Shop::canary_takes_its_share),
        ("limits", Shop::stays_within_its_limits),
        ("keep", Shop::keeps_its_data),
    ];
    let tested = steps.iter().try_for_each(|(name, test)| {
        let start = Instant::now();
        let found = test(&shop).with_context(|| (*name).to_owned())?;
        step(name, &format!("{found}, {}", seconds(start.elapsed())));
        Ok(())
    });
    shop.compose(&["--profile", "canary", "down", "--volumes", "--remove-orphans"])?;
    tested.map(|()| ExitCode::SUCCESS)
}

impl Shop<'_> {
    fn compose(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.current_dir(&self.layout.root).args(["compose", "--project-name", PROJECT]).args(args);
        command.env("DOCKSIDE_PORT", self.port.to_string());
        command.env("DOCKSIDE_TAG", PROJECT).env("CANARY_TAG", PROJECT);
        output(&mut command)
    }

    fn edge(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn container(&self, service: &str) -> Result<String> {
        let ids = self.compose(&["--profile", "canary", "ps", "--quiet", service])?;
        let id = ids.lines().next().with_context(|| format!("no container of {service}"))?;
        Ok(id.to_owned())
    }

    fn up(&self) -> Result<String> {
        self.compose(&["up", "--build", "--detach", "--wait"])?;
        smoke::run(self.layout, Some(&self.edge()))?;
        Ok("built, healthy, and an order is paid".to_owned())
    }

    /// The process dies, not by the engine's hand, which would keep it down.
    fn heals(&self) -> Result<String> {
        let id = self.container("order")?;
        let pid = inspect(&id, "{{.State.Pid}}")?;
        output(Command::new("kill").args(["-KILL", &pid]))
            .context("killing a container's process (as root)")?;
        let start = Instant::now();
        while inspect(&id, "{{.RestartCount}} {{.State.Health.Status}}")? != "1 healthy" {
            ensure!(start.elapsed() < Duration::from_secs(30), "order is not healthy again");
            pause(50);
        }
        smoke::run(self.layout, Some(&self.edge()))?;
        Ok(format!("order is healthy again {} after SIGKILL", seconds(start.elapsed())))
    }

    fn replaces_without_loss(&self) -> Result<String> {
        let (sent, lost, stop) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..LOAD_THREADS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        // Without a token: 401 is order's own answer.
                        // The edge gives an address that has vanished 2 s before it tries the next.
                        let url = format!("{}/api/v1/orders", self.edge());
                        let answer = net::request("GET", &url, &[], None, Duration::from_secs(10));
                        sent.fetch_add(1, Ordering::Relaxed);
                        if !answer.is_ok_and(|a| a.status == 401) {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                        pause(LOAD_PAUSE_MILLIS);
                    }
                });
            }
            let replaced = (0..REPLACEMENTS).try_for_each(|_| {
                let old = self.container("order")?;
                let scale = ["--no-deps", "--no-recreate", "--scale", "order=2", "order"];
                self.compose(&[["up", "--detach", "--wait"].as_slice(), &scale].concat())?;
                output(Command::new("docker").args(["stop", &old]))?;
                output(Command::new("docker").args(["rm", &old])).map(drop)
            });
            stop.store(true, Ordering::Relaxed);
            replaced
        })?;
        let (sent, lost) = (sent.into_inner(), lost.into_inner());
        ensure!(lost == 0, "{lost} of {sent} requests were lost over {REPLACEMENTS} replacements");
        Ok(format!("{REPLACEMENTS} replacements of order under load, none of {sent} requests lost"))
    }

    fn canary_takes_its_share(&self) -> Result<String> {
        let up =
            ["--profile", "canary", "up", "--detach", "--wait", "--no-deps", "--no-build", "order-canary"];
        self.compose(&up)?;
        let network = format!("{{{{(index .NetworkSettings.Networks \"{PROJECT}_edge\").IPAddress}}}}");
        let address = format!("\"upstream\":\"{}:", inspect(&self.container("order-canary")?, &network)?);
        let half = self.share("50", &address)?;
        ensure!((CANARY_REQUESTS * 2 / 5..=CANARY_REQUESTS * 3 / 5).contains(&half), "a half is {half}");
        let none = self.share("off", &address)?;
        ensure!(none == 0, "{none} requests reached the canary after the roll-back");
        Ok(format!("{half} of {CANARY_REQUESTS} requests at 50 %, none after the roll-back"))
    }

    /// How many of the requests made with that share went to the canary, by the edge's log.
    fn share(&self, share: &str, address: &str) -> Result<u32> {
        self.compose(&["exec", "-T", "edge", "canary", "order", share])?;
        let mark = format!("/api/v1/orders/{share}");
        for _ in 0..CANARY_REQUESTS {
            let answer = net::get(&format!("{}{mark}", self.edge()))?;
            ensure!(answer.status == 401, "{mark} answered {}", answer.status);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let mark = format!("\"path\":\"{mark}\"");
        loop {
            let log = self.compose(&["logs", "--no-color", "edge"])?;
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(&mark)).collect();
            if lines.len() == CANARY_REQUESTS as usize {
                return Ok(lines.iter().filter(|line| line.contains(address)).count() as u32);
            }
            ensure!(Instant::now() < deadline, "{} of the requests are in the edge's log", lines.len());
            pause(100);
        }
    }

    fn keeps_its_data(&self) -> Result<String> {
        let count = || -> Result<String> {
            let sql = "SELECT count(*) FROM orders.orders WHERE status = 'confirmed'";
            let psql = ["exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "dockside", "-Atc", sql];
            Ok(self.compose(&psql)?.trim().to_owned())
        };
        let before = count()?;
        self.compose(&["--profile", "canary", "down"])?;
        self.compose(&["up", "--detach", "--wait"])?;
        let after = count()?;
        ensure!(before != "0" && before == after, "{before} orders before, {after} after");
        smoke::run(self.layout, Some(&self.edge()))?;
        Ok(format!("{after} orders are still there after down and up"))
    }

    fn stays_within_its_limits(&self) -> Result<String> {
        for id in self.compose(&["ps", "--quiet"])?.lines() {
            let state =
                inspect(id, "{{.Name}} {{.State.OOMKilled}} {{.RestartCount}} {{.HostConfig.Memory}}")?;
            let [name, killed, restarts, limit] = state.split(' ').collect::<Vec<_>>()[..] else {
                bail!("not a container's state: {state}");
            };
            ensure!(killed == "false" && restarts == "0", "{name} was killed or restarted: {state}");
            ensure!(limit != "0", "{name} has no limit of memory");
        }
        Ok("every container has a limit of memory, and none was restarted since".to_owned())
    }
}

fn inspect(id: &str, format: &str) -> Result<String> {
    let text = output(Command::new("docker").args(["inspect", "--format", format, id]))?;
    Ok(text.trim().to_owned())
}
