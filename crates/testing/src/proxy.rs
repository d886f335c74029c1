//! An address in front of another, for tests of what a network does to its connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    now: Arc<Mutex<Fate>>,
    accepted: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
}

/// Of the connections made so far.
#[derive(Clone, Default)]
struct Fate {
    cut: CancellationToken,
    silenced: CancellationToken,
}

impl Proxy {
    /// In front of `target`, a host and a port.
    pub async fn to(target: impl Into<String>) -> Self {
        let (listener, target) = (TcpListener::bind("127.0.0.1:0").await, target.into());
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("a bound port has an address");
        let proxy = Self { address, now: Arc::default(), accepted: Arc::default(), left: Arc::default() };
        let made = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                made.accepted.fetch_add(1, Ordering::SeqCst);
                let fate = made.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(carry(client, target.clone(), fate, made.left.clone()));
            }
        });
        proxy
    }

    /// Ends all present connections.
    pub fn cut(&self) {
        self.renew().cut.cancel();
    }

    /// Carries nothing more on the present connections, which stay open as with a peer that is gone without a
    /// packet; new ones go through.
    pub fn silence(&self) {
        self.renew().silenced.cancel();
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many clients and servers have ended a connection that was silent.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    fn renew(&self) -> Fate {
        std::mem::take(&mut *self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn carry(mut client: TcpStream, target: String, fate: Fate, left: Arc<AtomicUsize>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        () = fate.cut.cancelled() => return,
        () = fate.silenced.cancelled() => {}
    }
    let listen = async |mut stream: TcpStream| {
        let mut discarded = [0; 4096];
        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
        left.fetch_add(1, Ordering::SeqCst);
        // Open on this side, whatever the other does.
        fate.cut.cancelled().await;
        drop(stream);
    };
    tokio::join!(listen(client), listen(server));
}
