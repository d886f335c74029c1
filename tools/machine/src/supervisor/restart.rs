//! How the supervisor is asked to restart processes: by a file, which it checks as often as its processes. It
//! answers by another.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::console::{self, seconds, step};
use crate::layout::{Layout, write_private};

pub const REQUEST: &str = "restart.request";
pub const ANSWER: &str = "restart.answer";
pub const LOCK: &str = "restart.lock";
pub const FILES: [&str; 3] = [REQUEST, ANSWER, LOCK];

/// Until a new process serves.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Removes what an earlier restart left.
pub fn forget(layout: &Layout) {
    for name in [REQUEST, ANSWER] {
        // Missing, as a rule.
        let _ = fs::remove_file(layout.dir.join(name));
    }
}

/// Does what was asked for, if anything was, in a thread of its own.
///
/// `restart` ends one process, starts it again and waits until it serves.
pub fn serve<R>(layout: &Layout, restart: &Arc<R>)
where
    R: Fn(&str) -> Result<Duration> + Send + Sync + 'static,
{
    let path = layout.dir.join(REQUEST);
    let Ok(bytes) = fs::read(&path) else { return };
    // Before the work, so that it is done once.
    if fs::remove_file(&path).is_err() {
        return;
    }
    let request: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let (layout, restart) = (layout.clone(), Arc::clone(restart));
    thread::spawn(move || {
        // One at a time, or both replicas of a service could be away: who asked may have gone without waiting.
        static AT_IT: Mutex<()> = Mutex::new(());
        let _at_it = AT_IT.lock().unwrap_or_else(PoisonError::into_inner);
        let names = request["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Err(e) = replace(&layout, restart.as_ref(), &request["id"], names) {
            console::event("dockside", &format!("restart: {e:#}"));
        }
    });
}

/// One after the other; a process that does not get ready is the last one, so that the others go on serving.
fn replace<'a>(
    layout: &Layout,
    restart: &impl Fn(&str) -> Result<Duration>,
    id: &Value,
    names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let path = layout.dir.join(ANSWER);
    let mut restarted = Vec::new();
    for name in names {
        let mut answer = json!({"id": id});
        match restart(name) {
            Ok(took) => {
                step(name, &format!("restarted, ready in {}", seconds(took)));
                restarted.push(json!({"name": name, "millis": took.as_millis() as u64}));
            }
            Err(e) => answer["error"] = json!(format!("{e:#}")),
        }
        answer["restarted"] = json!(restarted);
        write_private(&path, &serde_json::to_vec(&answer)?)?;
        if !answer["error"].is_null() {
            break;
        }
    }
    Ok(())
}
