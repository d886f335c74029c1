//! Named places at which a test has this process die, stall or fail.
//!
//! A debug build lets the admin port arm them while it runs; unless armed they do
//! nothing. A release build has neither the places nor the routes. Who has failpoints registers their names when it starts.
//!
//! ```text
//! GET    /failpoints           {"names": [...], "armed": {name: action}, "pid": 4711}
//! PUT    /failpoints/{name}    crash | stall <milliseconds> | fail, the next time; `3*fail` the next three times
//! DELETE /failpoints/{name}
//! ```

/// Nothing can be armed.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn register(_names: &[&'static str]) {}

/// Nothing can be armed. Not an `async fn`, whose future would keep the name.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_name: &'static str) -> std::future::Ready<sqlx::Result<()>> {
    std::future::ready(Ok(()))
}

#[cfg(debug_assertions)]
pub use armed::{hit, register, router};

#[cfg(debug_assertions)]
mod armed {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::{get, put};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    /// Those of this process.
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    fn known() -> MutexGuard<'static, BTreeSet<&'static str>> {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds names to the list of this process.
    pub fn register(names: &[&'static str]) {
        known().extend(names);
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        Crash,
        Stall(Duration),
        Fail,
    }

    /// What is to happen, and how many times.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Armed {
        times: u32,
        fault: Fault,
    }

    static ARMED: Mutex<BTreeMap<&'static str, Armed>> = Mutex::new(BTreeMap::new());

    fn armed() -> MutexGuard<'static, BTreeMap<&'static str, Armed>> {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the fault happen that is armed at `name`. The error is of the kind that
    /// passes, [`crate::db::is_transient`].
    pub async fn hit(name: &'static str) -> sqlx::Result<()> {
        {
            // A unit test may run a part of a service that was not started.
            let known = known();
            assert!(known.is_empty() || known.contains(name), "the failpoint {name} is not registered");
        }
        let Some(fault) = next(name) else { return Ok(()) };
        tracing::warn!(failpoint = name, ?fault, "failpoint.reached");
        match fault {
            Fault::Crash => die(),
            Fault::Stall(pause) => tokio::time::sleep(pause).await,
            Fault::Fail => return Err(sqlx::Error::Io(io::Error::other(format!("failpoint {name}")))),
        }
        Ok(())
    }

    /// The fault to happen now; it is armed once less.
    fn next(name: &'static str) -> Option<Fault> {
        let mut armed = armed();
        let entry = armed.get_mut(name)?;
        entry.times -= 1;
        let Armed { times, fault } = *entry;
        if times == 0 {
            armed.remove(name);
        }
        Some(fault)
    }

    /// Ends the process as a power cut would: nothing is flushed, no destructor runs.
    fn die() -> ! {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort()
    }

    fn parse(text: &str) -> Option<Armed> {
        let (times, fault) = text.split_once('*').unwrap_or(("1", text));
        let times = times.trim().parse().ok().filter(|times| *times > 0)?;
        let mut words = fault.split_whitespace();
        let fault = match (words.next()?, words.next(), words.next()) {
            ("crash", None, _) => Fault::Crash,
            ("fail", None, _) => Fault::Fail,
            ("stall", Some(millis), None) => Fault::Stall(Duration::from_millis(millis.parse().ok()?)),
            _ => return None,
        };
        Some(Armed { times, fault })
    }

    impl std::fmt::Display for Armed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self.fault {
                Fault::Crash => write!(f, "{}*crash", self.times),
                Fault::Stall(pause) => write!(f, "{}*stall {}", self.times, pause.as_millis()),
                Fault::Fail => write!(f, "{}*fail", self.times),
            }
        }
    }

    pub fn router() -> Router {
        Router::new().route("/failpoints", get(show)).route("/failpoints/{name}", put(arm).delete(disarm))
    }

    type Refused = (StatusCode, &'static str);

    fn find(name: &str) -> Result<&'static str, Refused> {
        let known = known().get(name).copied();
        known.ok_or((StatusCode::NOT_FOUND, "there is no failpoint of that name\n"))
    }

    async fn show() -> Json<Value> {
        let armed: BTreeMap<_, _> = armed().iter().map(|(name, armed)| (*name, armed.to_string())).collect();
        Json(json!({"names": &*known(), "armed": armed, "pid": std::process::id()}))
    }

    async fn arm(Path(name): Path<String>, action: String) -> Result<StatusCode, Refused> {
        let name = find(&name)?;
        let usage = "crash, stall <milliseconds> or fail, with or without a count in front: 3*fail\n";
        armed().insert(name, parse(&action).ok_or((StatusCode::BAD_REQUEST, usage))?);
        Ok(StatusCode::NO_CONTENT)
    }

    async fn disarm(Path(name): Path<String>) -> Result<StatusCode, Refused> {
        armed().remove(find(&name)?);
        Ok(StatusCode::NO_CONTENT)
    }

    #[cfg(test)]
    mod tests {
        use std::time::Instant;

        use super::*;

        #[test]
        fn an_action_has_a_fault_and_may_have_a_count() {
            let once = |fault| Some(Armed { times: 1, fault });
            assert_eq!(parse("crash"), once(Fault::Crash));
            assert_eq!(parse(" stall 250\n"), once(Fault::Stall(Duration::from_millis(250))));
            assert_eq!(parse("3*fail"), Some(Armed { times: 3, fault: Fault::Fail }));
            assert_eq!(parse("3*fail").unwrap().to_string(), "3*fail");
            for nonsense in ["", "explode", "stall", "stall x", "stall 1 2", "fail 1", "0*fail", "x*fail"] {
                assert_eq!(parse(nonsense), None, "{nonsense}");
            }
        }

        #[tokio::test]
        async fn a_fault_happens_as_often_as_it_is_armed() {
            let name = "test.fails";
            register(&[name]);
            assert!(hit(name).await.is_ok());
            let answered = arm(Path(name.to_owned()), "2*fail".to_owned()).await;
            assert_eq!(answered, Ok(StatusCode::NO_CONTENT));
            assert!(crate::db::is_transient(&hit(name).await.unwrap_err()));
            assert_eq!(show().await.0["armed"][name], "1*fail");
            assert!(hit(name).await.is_err());
            assert!(hit(name).await.is_ok());
        }

        #[tokio::test]
        async fn a_stall_goes_on_afterwards_and_what_is_disarmed_does_not_happen() {
            let name = "test.stalls";
            register(&[name]);
            arm(Path(name.to_owned()), "stall 20".to_owned()).await.unwrap();
            let started = Instant::now();
            assert!(hit(name).await.is_ok());
            assert!(started.elapsed() >= Duration::from_millis(20));
            arm(Path(name.to_owned()), "fail".to_owned()).await.unwrap();
            disarm(Path(name.to_owned())).await.unwrap();
            assert!(hit(name).await.is_ok());
        }

        #[tokio::test]
        async fn an_unknown_name_is_404_and_an_unknown_action_400() {
            let answer = arm(Path("order.place.nowhere".to_owned()), "crash".to_owned()).await;
            assert_eq!(answer.unwrap_err().0, StatusCode::NOT_FOUND);
            register(&["test.known"]);
            let answer = arm(Path("test.known".to_owned()), "explode".to_owned()).await;
            assert_eq!(answer.unwrap_err().0, StatusCode::BAD_REQUEST);
        }
    }
}
