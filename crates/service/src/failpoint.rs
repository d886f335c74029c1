//! Named places at which a test has this process die, stall or fail.
//!
//! A debug build lets the admin port arm them while it runs; unless armed they do
//! nothing. A release build has neither the places nor the routes.
//!
//! ```text
//! GET    /failpoints           {"names": [...], "armed": {name: action}, "pid": 4711}
//! PUT    /failpoints/{name}    crash | stall <milliseconds> | fail, the next time; `3*fail` the next three times
//! DELETE /failpoints/{name}
//! ```

/// Nothing can be armed. Not an `async fn`, whose future would keep the name.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_name: &'static str) -> std::future::Ready<sqlx::Result<()>> {
    std::future::ready(Ok(()))
}

#[cfg(debug_assertions)]
pub use armed::{reach, router};

#[cfg(debug_assertions)]
mod armed {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::{get, put};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    /// All there are, whichever service they are in.
    const NAMES: [&str; 48] = [
        // Placing an order.
        "order.place.claimed",    // the key is the request's, nothing is reserved
        "order.place.taken_over", // the same, of a request that died
        "order.place.reserved",
        "order.place.written",   // order, answer and event, before their commit
        "order.place.committed", // and not yet answered
        "order.place.refused",   // the refusal is stored, and not yet answered
        // The saga: a worker has it; each call before it is made, and answered but not applied.
        "order.saga.leased",
        "order.saga.create.before",
        "order.saga.create.after",
        "order.saga.confirm.before",
        "order.saga.confirm.after",
        "order.saga.retrieve.before",
        "order.saga.retrieve.after",
        "order.saga.commit.before",
        "order.saga.commit.after",
        "order.saga.capture.before",
        "order.saga.capture.after",
        "order.saga.cancel.before",
        "order.saga.cancel.after",
        "order.saga.refund.before",
        "order.saga.refund.after",
        "order.saga.look.before", // at what a webhook or a refund by staff brought up
        "order.saga.look.after",
        "order.saga.written", // what an answer changes, before its commit
        "order.saga.committed",
        // A refund by staff: written with its answer.
        "order.refund.written",
        "order.refund.committed",
        // Recovery: abandoned claims, erased users.
        "order.sweep.taken",    // the sweeper's now, their stock still reserved
        "order.sweep.released", // and not yet let go
        "order.erasure.written",
        // Stock, before and after the commit of each operation.
        "product.reserve.written",
        "product.reserve.committed",
        "product.commit.written",
        "product.commit.committed",
        "product.release.written",
        "product.release.committed",
        "product.expiry.written",
        "product.expiry.committed",
        "product.restock.written", // by an event; its commit is the consumer's
        // Accounts.
        "user.erasure.written",
        "user.erasure.committed",
        // Every service's relay.
        "relay.claimed",
        "relay.published", // and confirmed, but not marked
        "relay.marked",
        // Every service's consumer.
        "consumer.received",
        "consumer.applied",   // before the commit
        "consumer.committed", // and not yet acknowledged
        "consumer.put_aside", // in its retry queue or among the dead letters, and not yet acknowledged
    ];

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
    pub async fn reach(name: &'static str) -> sqlx::Result<()> {
        assert!(NAMES.contains(&name), "{name} is missing from the list of failpoints");
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

    fn known(name: &str) -> Result<&'static str, Refused> {
        let known = NAMES.into_iter().find(|known| *known == name);
        known.ok_or((StatusCode::NOT_FOUND, "there is no failpoint of that name\n"))
    }

    async fn show() -> Json<Value> {
        let armed: BTreeMap<_, _> = armed().iter().map(|(name, armed)| (*name, armed.to_string())).collect();
        Json(json!({"names": NAMES.as_slice(), "armed": armed, "pid": std::process::id()}))
    }

    async fn arm(Path(name): Path<String>, action: String) -> Result<StatusCode, Refused> {
        let name = known(&name)?;
        let usage = "crash, stall <milliseconds> or fail, with or without a count in front: 3*fail\n";
        armed().insert(name, parse(&action).ok_or((StatusCode::BAD_REQUEST, usage))?);
        Ok(StatusCode::NO_CONTENT)
    }

    async fn disarm(Path(name): Path<String>) -> Result<StatusCode, Refused> {
        armed().remove(known(&name)?);
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

        #[test]
        fn names_are_listed_once() {
            let unique: std::collections::BTreeSet<_> = NAMES.into_iter().collect();
            assert_eq!(unique.len(), NAMES.len());
        }

        #[tokio::test]
        async fn a_fault_happens_as_often_as_it_is_armed() {
            let name = "order.place.claimed";
            assert!(reach(name).await.is_ok());
            let answered = arm(Path(name.to_owned()), "2*fail".to_owned()).await;
            assert_eq!(answered, Ok(StatusCode::NO_CONTENT));
            assert!(crate::db::is_transient(&reach(name).await.unwrap_err()));
            assert_eq!(show().await.0["armed"][name], "1*fail");
            assert!(reach(name).await.is_err());
            assert!(reach(name).await.is_ok());
        }

        #[tokio::test]
        async fn a_stall_goes_on_afterwards_and_what_is_disarmed_does_not_happen() {
            let name = "order.place.reserved";
            arm(Path(name.to_owned()), "stall 20".to_owned()).await.unwrap();
            let started = Instant::now();
            assert!(reach(name).await.is_ok());
            assert!(started.elapsed() >= Duration::from_millis(20));
            arm(Path(name.to_owned()), "fail".to_owned()).await.unwrap();
            disarm(Path(name.to_owned())).await.unwrap();
            assert!(reach(name).await.is_ok());
        }

        #[tokio::test]
        async fn an_unknown_name_is_404_and_an_unknown_action_400() {
            let answer = arm(Path("order.place.nowhere".to_owned()), "crash".to_owned()).await;
            assert_eq!(answer.unwrap_err().0, StatusCode::NOT_FOUND);
            let answer = arm(Path("relay.marked".to_owned()), "explode".to_owned()).await;
            assert_eq!(answer.unwrap_err().0, StatusCode::BAD_REQUEST);
        }
    }
}
