use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A way to PostgreSQL. Connections that are open when it is cut stay open, and nothing comes back on them.
#[derive(Clone, Default)]
struct Way {
    cuts: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

impl Way {
    /// Returns where it begins.
    async fn to(&self, target: String) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = self.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                way.opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(way.clone().carry(near, far));
            }
        });
        address
    }

    async fn carry(self, near: TcpStream, far: TcpStream) {
        let before = self.cuts.load(Ordering::SeqCst);
        let (mut from_near, mut to_near) = near.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        tokio::spawn(async move { copy(&mut from_near, &mut to_far).await });
        let mut buffer = [0; 4096];
        while let Ok(read) = from_far.read(&mut buffer).await {
            if read == 0 || self.cuts.load(Ordering::SeqCst) > before {
                break;
            }
            let _ = to_near.write_all(&buffer[..read]).await;
        }
        std::future::pending::<()>().await; // with both ends open
    }
}

#[tokio::test]
async fn a_connection_whose_other_end_has_vanished_is_replaced() {
    let database = testing::database("orders").await;
    let (before, name) = database.rsplit_once('/').unwrap();
    let (login, target) = before.rsplit_once('@').unwrap();
    let way = Way::default();
    let through = format!("{login}@{}/{name}", way.to(target.to_owned()).await);
    let stream = OrderStream::new(Pool::lazy(&through, "orders", 2).unwrap(), 1, Duration::from_secs(5)).0;
    let pool = Pool::lazy(&database, "orders", 2).unwrap();
    let stop = CancellationToken::new();
    let receiving = tokio::spawn(stream.receive(stop.clone(), Pulse::unwatched()));
    let listens = || async {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'";
        let listening: i64 = pool.fetch_one(query).await.unwrap().get(0);
        (listening > 0).then_some(())
    };
    testing::eventually("it to listen", listens).await;
    // Several, where the first took too long.
    let opened = way.opened.load(Ordering::SeqCst);
    way.cuts.fetch_add(1, Ordering::SeqCst);
    let anew = || async { (way.opened.load(Ordering::SeqCst) > opened).then_some(()) };
    testing::within(Duration::from_secs(30), "another connection", anew).await;
    stop.cancel();
    receiving.await.unwrap();
}
