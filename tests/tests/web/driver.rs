//! Chromium's driver, with the browsers that it starts and the files that they leave.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use url::{ParseError, Url};
use uuid::Uuid;

pub struct Driver {
    child: Child,
    /// Open as long as the driver runs, which writes to it.
    _output: BufReader<ChildStdout>,
    home: PathBuf,
    pub url: String,
}

impl Driver {
    pub async fn start(program: &str) -> Self {
        let home = std::env::temp_dir().join(format!("dockside-web-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new(program);
        // A group of its own, so that the browsers end with it, however a test ends.
        command.arg("--port=0").env("HOME", &home).env("TMPDIR", &home).process_group(0);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut driver = tokio::task::spawn_blocking(move || {
            let mut url = String::new();
            for _ in 0..20 {
                let mut line = String::new();
                output.read_line(&mut line).unwrap();
                if let Some((_, port)) = line.trim_end().trim_end_matches('.').rsplit_once("on port ") {
                    // It names the port that was asked for first, which is 0.
                    if port.parse::<u16>().is_ok_and(|port| port != 0) {
                        url = format!("http://localhost:{port}");
                        break;
                    }
                }
            }
            Self { child, _output: output, home, url }
        });
        let started = tokio::time::timeout(Duration::from_secs(60), &mut driver).await;
        let driver = started.expect("the driver starts within a minute").unwrap();
        assert!(!driver.url.is_empty(), "{program} says no port");
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A command of Chromium's own: its place under the session, and what it is told.
#[derive(Debug)]
pub struct Chromium(pub &'static str, pub Value);

impl WebDriverCompatibleCommand for Chromium {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (reqwest::Method, Option<String>) {
        (reqwest::Method::POST, Some(self.1.to_string()))
    }
}
