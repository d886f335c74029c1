//! A name that stands for several replicas, resolved again and again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::http::Uri;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::{Connector, Replica, Turns, kept_alive};

/// Between two lookups. A new replica gets no calls for longer than this, and what the name servers add.
const EVERY: Duration = Duration::from_secs(5);

/// The same after a call has failed.
const AFTER_A_FAILURE: Duration = Duration::from_millis(250);

const DEADLINE: Duration = Duration::from_secs(2);

/// Replicas of one name, at most.
const MOST: usize = 64;

impl Turns {
    /// Keeps the replicas of an address equal to those that its name stands for, as long as there are calls
    /// to be made.
    pub(super) fn follow(self: &Arc<Self>, named: usize, endpoint: Endpoint, connector: Connector) {
        let Some((host, port)) = name(endpoint.uri()) else { return };
        let resolve = move || {
            let host = host.clone();
            async move { Ok(lookup_host((host, port)).await?.collect()) }
        };
        let connect = move |at| connect(&endpoint, &connector, at);
        let (turns, failed) = (Arc::downgrade(self), self.failed.clone());
        tokio::spawn(async move {
            let mut unknown = false;
            while let Some(turns) = turns.upgrade() {
                let known = turns.resolve(named, resolve(), &connect).await;
                drop(turns);
                if let Err(error) = &known
                    && !unknown
                {
                    tracing::warn!(%error, "grpc.name_unknown");
                }
                unknown = known.is_err();
                let _ = timeout(EVERY, failed.notified()).await;
                sleep(AFTER_A_FAILURE).await;
            }
        });
    }

    /// Resolves the name once. An unknown name, or one without addresses, changes nothing.
    async fn resolve(
        &self,
        named: usize,
        resolve: impl Future<Output = io::Result<Vec<SocketAddr>>>,
        connect: impl Fn(SocketAddr) -> Channel,
    ) -> io::Result<()> {
        let mut found = timeout(DEADLINE, resolve).await.map_err(io::Error::from)??;
        // Where there are addresses of both kinds, they may be two ways to each replica. The first one is preferred (RFC 6724).
        let first = found.first().copied().ok_or_else(|| io::Error::other("the name has no address"))?;
        found.retain(|at| at.is_ipv4() == first.is_ipv4());
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST);
        self.now_at(named, &found, connect);
        Ok(())
    }

    /// From now on the replicas of one name are at these addresses. A known one stays, with its state.
    fn now_at(&self, named: usize, addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> Channel) {
        let mut replicas = self.replicas.write().unwrap_or_else(PoisonError::into_inner);
        let replica = |at: &SocketAddr| {
            let known = replicas.iter().find(|known| known.named == named && known.at == Some(*at));
            known.cloned().unwrap_or_else(|| Arc::new(Replica::new(named, Some(*at), connect(*at))))
        };
        let others = replicas.iter().filter(|other| other.named != named).cloned();
        *replicas = others.chain(addresses.iter().map(replica)).collect();
    }
}

/// Host and port, where the address may lead to several replicas: not to this machine, nor to an IP address.
fn name(address: &Uri) -> Option<(String, u16)> {
    let host = address.host()?;
    let one =
        host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
    let port = address.port_u16().unwrap_or(80);
    (!one).then(|| (host.to_owned(), port))
}

/// To this replica, in the name of all.
fn connect(named: &Endpoint, connector: &Connector, at: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{at}")).map(|one| one.origin(named.uri().clone()));
    let endpoint = endpoint.map_or_else(|_| named.clone(), kept_alive);
    endpoint.connect_with_connector_lazy(connector.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::Replicas;
    use super::*;

    #[test]
    fn only_a_name_may_stand_for_several() {
        for (address, expected) in [
            ("http://product-grpc:9082", Some(("product-grpc", 9082))),
            ("http://product.example", Some(("product.example", 80))),
            ("http://127.0.0.1:9082", None),
            ("http://[::1]:9082", None),
            ("http://localhost:9082", None),
        ] {
            let found = name(&address.parse().unwrap());
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_s_replicas_come_and_go_and_those_that_stay_keep_what_is_known_of_them() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.2:1", None).unwrap();
        let (named, connector) = super::super::endpoint("http://product:1", None).unwrap();
        let resolve = async |found: &[&str]| {
            let found = found.iter().map(|at| at.parse().unwrap()).collect();
            turns.resolve(1, async { Ok(found) }, |at| connect(&named, &connector, at)).await
        };
        let at = || -> Vec<Option<String>> {
            turns.replicas().iter().map(|replica| replica.at.map(|at| at.to_string())).collect()
        };
        let some = |at: &str| Some(at.to_owned());

        resolve(&["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]).await.unwrap();
        assert_eq!(at(), [None, some("10.0.0.1:1"), some("10.0.0.2:1")]);
        turns.replicas()[2].passed_over.store(7, Ordering::Relaxed);
        resolve(&["10.0.0.3:1", "10.0.0.2:1"]).await.unwrap();
        assert_eq!(at(), [None, some("10.0.0.2:1"), some("10.0.0.3:1")]);
        assert_eq!(turns.replicas()[1].passed_over.load(Ordering::Relaxed), 7);

        assert!(resolve(&[]).await.is_err());
        let unknown = async { Err(io::Error::other("not known")) };
        assert!(turns.resolve(1, unknown, |at| connect(&named, &connector, at)).await.is_err());
        assert_eq!(at().len(), 3, "they may be there all the same");
    }
}
