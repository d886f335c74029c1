//! TCP links that can be made to fail: each passes on what goes between the services and what they call until
//! a command makes it cut, stall or slow it.
//!
//! `links --control 127.0.0.1:PORT --link NAME=LISTEN=TARGET ...`; on the control port a line each, answered by one:
//! `sever NAME` (open connections are reset, and new ones at once), `stall NAME` (connections stay, nothing flows),
//! `slow NAME MILLIS` (before whatever is read is passed on), `heal NAME`, `list`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// To reach a link's target, on this machine.
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    Slow(Duration),
    Stalled,
    Severed,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Whole => f.write_str("whole"),
            State::Slow(pause) => write!(f, "slow:{}", pause.as_millis()),
            State::Stalled => f.write_str("stalled"),
            State::Severed => f.write_str("severed"),
        }
    }
}

type Links = Arc<BTreeMap<String, watch::Sender<State>>>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("links: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let (mut control, mut links) = (None, BTreeMap::new());
    for pair in args.chunks(2) {
        match pair {
            [option, address] if option == "--control" => control = Some(address),
            [option, link] if option == "--link" => {
                let mut parts = link.split('=');
                let (Some(name), Some(listen), Some(target), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err(format!("{link} is not NAME=LISTEN=TARGET").into());
                };
                let (sender, state) = watch::channel(State::Whole);
                tokio::spawn(serve(bind(listen).await?, target.to_owned(), state));
                links.insert(name.to_owned(), sender);
            }
            _ => return Err("usage: links --control ADDRESS [--link NAME=LISTEN=TARGET]...".into()),
        }
    }
    let control = bind(control.ok_or("--control is missing")?).await?;
    obey(control, Arc::new(links)).await;
    Ok(())
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// The next connection, however often there are no files left for one.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                eprintln!("links: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Does what is said on the control port.
async fn obey(control: TcpListener, links: Links) {
    loop {
        let mut stream = accept(&control).await;
        let links = links.clone();
        tokio::spawn(async move {
            let (reader, mut writer) = stream.split();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = match command(&links, &line) {
                    Ok(answer) => answer,
                    Err(error) => format!("error {error}"),
                };
                if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn command(links: &Links, line: &str) -> Result<String, String> {
    let (name, state) = match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["list"] => {
            let states = links.iter().map(|(name, state)| format!(" {name}={}", *state.borrow()));
            return Ok(format!("ok{}", states.collect::<String>()));
        }
        ["sever", name] => (name, State::Severed),
        ["stall", name] => (name, State::Stalled),
        ["heal", name] => (name, State::Whole),
        ["slow", name, millis] => {
            let millis = millis.parse().map_err(|_| format!("{millis} is no number of milliseconds"))?;
            (name, State::Slow(Duration::from_millis(millis)))
        }
        _ => return Err("no such command: sever, stall, heal NAME; slow NAME MILLIS; list".to_owned()),
    };
    let link = links.get(name).ok_or_else(|| format!("no link {name}"))?;
    link.send_replace(state);
    Ok("ok".to_owned())
}

async fn serve(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    loop {
        let client = accept(&listener).await;
        tokio::spawn(connection(client, target.clone(), state.clone()));
    }
}

/// One connection, until either end is done with it or the link is cut.
async fn connection(mut client: TcpStream, target: String, state: watch::Receiver<State>) {
    let mut cut = state.clone();
    let mut server = None;
    let ended = tokio::select! {
        biased;
        _ = cut.wait_for(|state| *state == State::Severed) => Err(io::ErrorKind::ConnectionReset.into()),
        ended = pass_on(&mut client, &mut server, &target, &state) => ended,
    };
    if ended.is_err() {
        // So that the end is a reset, as when a machine is gone, and no orderly one.
        for stream in [Some(&client), server.as_ref()].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

async fn pass_on(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: &str,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    let server = server.insert(tokio::time::timeout(CONNECT, TcpStream::connect(target)).await??);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::try_join!(
        copy(from_client, to_server, state.clone()),
        copy(from_server, to_client, state.clone())
    )?;
    Ok(())
}

/// One direction, to its end.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let flows = state.wait_for(|state| *state != State::Stalled).await.map(|state| *state);
        if let Ok(State::Slow(pause)) = flows {
            tokio::time::sleep(pause).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    /// A link to a server that sends back what it gets; its address and its control.
    async fn link() -> (String, Links) {
        let (server, listener) = (bind("127.0.0.1:0").await.unwrap(), bind("127.0.0.1:0").await.unwrap());
        let (target, address) =
            (server.local_addr().unwrap().to_string(), listener.local_addr().unwrap().to_string());
        tokio::spawn(async move {
            loop {
                let mut stream = accept(&server).await;
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let (sender, state) = watch::channel(State::Whole);
        tokio::spawn(serve(listener, target, state));
        (address, Arc::new(BTreeMap::from([("echo".to_owned(), sender)])))
    }

    async fn echoed(stream: &mut TcpStream) -> io::Result<Duration> {
        let start = Instant::now();
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut [0; 5]).await?;
        Ok(start.elapsed())
    }

    #[tokio::test]
    async fn a_severed_link_resets_its_connections_and_new_ones_until_it_is_healed() {
        let (address, links) = link().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        echoed(&mut stream).await.unwrap();
        assert_eq!(command(&links, "sever echo").unwrap(), "ok");
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut late = TcpStream::connect(&address).await.unwrap();
        assert!(tokio::time::timeout(SOON, echoed(&mut late)).await.unwrap().is_err());
        command(&links, "heal echo").unwrap();
        echoed(&mut TcpStream::connect(&address).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_stalled_link_holds_what_is_sent_and_passes_it_on_once_healed() {
        let (address, links) = link().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        command(&links, "stall echo").unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        assert!(tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.is_err());
        command(&links, "heal echo").unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[tokio::test]
    async fn a_slow_link_delays_both_ways() {
        let (address, links) = link().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        command(&links, "slow echo 60").unwrap();
        assert!(echoed(&mut stream).await.unwrap() >= Duration::from_millis(120));
        assert_eq!(command(&links, "list").unwrap(), "ok echo=slow:60");
    }

    #[tokio::test]
    async fn an_end_passes_through_and_a_dead_target_is_a_reset() {
        let (address, _links) = link().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        echoed(&mut stream).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, "127.0.0.1:1".to_owned(), watch::channel(State::Whole).1));
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(echoed(&mut stream).await.is_err());
    }

    #[test]
    fn a_wrong_command_is_answered_with_what_is_wrong() {
        let links = Arc::new(BTreeMap::from([("echo".to_owned(), watch::channel(State::Whole).0)]));
        assert_eq!(command(&links, "sever nobody").unwrap_err(), "no link nobody");
        assert!(command(&links, "slow echo soon").unwrap_err().contains("soon"));
        assert!(command(&links, "burn echo").unwrap_err().starts_with("no such command"));
    }
}
