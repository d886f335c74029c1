//! A broker address that withholds the confirms of one event type, as a queue without a leader does.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Class and method of AMQP 0-9-1's basic.publish and basic.ack.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const ACK: [u8; 4] = [0, 60, 0, 80];

#[derive(Clone)]
pub struct Withheld {
    kind: &'static str,
    on: Arc<AtomicBool>,
    pub address: SocketAddr,
}

/// By channel: how many were published, and those whose confirm has not come, by their number.
type Published = Arc<Mutex<HashMap<u16, (u64, BTreeMap<u64, String>)>>>;

struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

impl Withheld {
    pub async fn of(kind: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, on) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let withheld = Self { kind, on, address };
        let rule = withheld.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let rule = rule.clone();
                tokio::spawn(async move {
                    let broker = TcpStream::connect(super::broker_host()).await.unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_broker, to_broker) = broker.into_split();
                    let published = Published::default();
                    tokio::select! {
                        _ = out(from_client, to_broker, published.clone()) => {}
                        _ = back(from_broker, to_client, published, rule) => {}
                    }
                });
            }
        });
        withheld
    }

    /// From now on all are confirmed; what was not stays so.
    pub fn end(&self) {
        self.on.store(false, Ordering::SeqCst);
    }
}

async fn out(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    published: Published,
) -> std::io::Result<()> {
    let mut protocol = [0; 8];
    from.read_exact(&mut protocol).await?;
    to.write_all(&protocol).await?;
    loop {
        let frame = read(&mut from).await?;
        if frame.kind == 1 && frame.payload.starts_with(&PUBLISH) {
            // Two reserved bytes, then the exchange and the routing key, each after its length.
            let exchange = usize::from(frame.payload[6]);
            let key = &frame.payload[7 + exchange..];
            let key = String::from_utf8_lossy(&key[1..=usize::from(key[0])]).into_owned();
            let mut published = published.lock().unwrap();
            let (count, open) = published.entry(frame.channel).or_default();
            *count += 1;
            open.insert(*count, key);
        }
        write(&mut to, &frame).await?;
    }
}

async fn back(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    published: Published,
    rule: Withheld,
) -> std::io::Result<()> {
    loop {
        let frame = read(&mut from).await?;
        if frame.kind != 1 || !frame.payload.starts_with(&ACK) {
            write(&mut to, &frame).await?;
            continue;
        }
        let tag = u64::from_be_bytes(frame.payload[4..12].try_into().unwrap());
        let multiple = frame.payload[12] & 1 == 1;
        let confirmed: Vec<(u64, String)> = {
            let mut published = published.lock().unwrap();
            let (_, open) = published.entry(frame.channel).or_default();
            let later = open.split_off(&(tag + 1));
            let covered = std::mem::replace(open, later);
            let (covered, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
                covered.into_iter().partition(|(number, _)| multiple || *number == tag);
            open.extend(rest);
            covered.into_iter().collect()
        };
        for (number, key) in confirmed {
            if key == rule.kind && rule.on.load(Ordering::SeqCst) {
                continue;
            }
            let payload = [&ACK[..], &number.to_be_bytes(), &[0]].concat();
            write(&mut to, &Frame { kind: 1, channel: frame.channel, payload }).await?;
        }
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let (kind, channel, size) = (from.read_u8().await?, from.read_u16().await?, from.read_u32().await?);
    let mut payload = vec![0; size as usize];
    from.read_exact(&mut payload).await?;
    from.read_u8().await?;
    Ok(Frame { kind, channel, payload })
}

async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> std::io::Result<()> {
    let head = [&[frame.kind][..], &frame.channel.to_be_bytes(), &(frame.payload.len() as u32).to_be_bytes()];
    to.write_all(&[&head.concat()[..], &frame.payload, &[0xCE]].concat()).await
}
