//! A gate before the S3 server: bytes pass it unchanged, so that signatures hold; it takes down the requests, can hold
//! back the rest of a body or never let it come, and can answer in the server's place as servers do that are in trouble.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Answers come from the server, or from the gate in its place.
type ToClient = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

const BUFFER_BYTES: usize = 64 * 1024;
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

pub struct Gate {
    address: SocketAddr,
    passage: Passage,
    listening: JoinHandle<()>,
}

/// One request, as it was sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the bucket and the query, percent-encoded.
    pub path: String,
    /// `name: value`, in lower case.
    pub headers: Vec<String>,
}

impl Request {
    /// Whether it depends on what stands there: `If-Match` or `If-None-Match`.
    pub fn is_conditional(&self) -> bool {
        self.headers
            .iter()
            .any(|header| header.starts_with("if-match:") || header.starts_with("if-none-match:"))
    }
}

/// Which bodies wait, and where.
#[derive(Debug, Clone)]
struct Hold {
    path: String,
    after_bytes: usize,
}

#[derive(Clone)]
struct Passage {
    requests: Arc<Mutex<Vec<Request>>>,
    hold: watch::Sender<Option<Hold>>,
    held: watch::Sender<bool>,
    /// What becomes of the connections that were held.
    cut: Arc<AtomicBool>,
    /// What becomes of requests of paths that contain a fragment.
    faults: Arc<Mutex<Vec<(String, Fault)>>>,
}

/// Trouble that a healthy server can't be made to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends without an answer.
    Closed,
    /// An answer with this status, and this code of S3's.
    Status(u16, &'static str),
    /// An answer that says that it was done, whatever was asked.
    Claimed,
    /// The request is taken, and nothing comes back.
    BlackHole,
    /// The server answers after so many milliseconds.
    Slow(u64),
}

impl Gate {
    /// Opens a gate to the server at `http://host:port`.
    pub async fn before(endpoint: &str) -> Self {
        let server = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let passage = Passage {
            requests: Arc::default(),
            hold: watch::Sender::new(None),
            held: watch::Sender::new(false),
            cut: Arc::default(),
            faults: Arc::default(),
        };
        let listening = tokio::spawn(listen(listener, server, passage.clone()));
        Self {
            address,
            passage,
            listening,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked about paths that contain `fragment`, in order.
    pub fn requests(&self, fragment: &str) -> Vec<Request> {
        let requests = lock(&self.passage.requests);
        let about = |request: &&Request| request.path.contains(fragment);
        requests.iter().filter(about).cloned().collect()
    }

    /// The methods of what was asked about these paths.
    pub fn methods(&self, fragment: &str) -> Vec<String> {
        let requests = self.requests(fragment);
        requests.into_iter().map(|request| request.method).collect()
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        lock(&self.passage.requests).clear();
    }

    /// From now on, requests of paths that contain `fragment` get no answer: their connections end.
    pub fn close(&self, fragment: &str) {
        self.fail(fragment, Fault::Closed);
    }

    /// From now on, requests of paths that contain `fragment` meet this fault.
    pub fn fail(&self, fragment: &str, fault: Fault) {
        lock(&self.passage.faults).push((fragment.to_owned(), fault));
    }

    /// The server is back.
    pub fn open(&self) {
        lock(&self.passage.faults).clear();
    }

    /// From now on, answers to GETs of paths that contain `fragment` stop after so many bytes.
    pub fn hold_bodies(&self, fragment: &str, after_bytes: usize) {
        self.passage.held.send_replace(false);
        self.passage.cut.store(false, Ordering::SeqCst);
        self.passage.hold.send_replace(Some(Hold {
            path: fragment.to_owned(),
            after_bytes,
        }));
    }

    /// Waits until an answer stands still.
    pub async fn held(&self) {
        let mut held = self.passage.held.subscribe();
        held.wait_for(|held| *held)
            .await
            .expect("the gate is there");
    }

    /// Lets everything pass again, but what was held never comes: its connections end.
    pub fn cut(&self) {
        self.passage.cut.store(true, Ordering::SeqCst);
        self.release();
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.passage.hold.send_replace(None);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, server: String, passage: Passage) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let Ok(server) = TcpStream::connect(&server).await else {
            continue;
        };
        for end in [&client, &server] {
            // Or the second part of a request waits for the acknowledgement of the first.
            let _ = end.set_nodelay(true);
        }
        let (asked, answering) = watch::channel(String::new());
        let (from_client, to_client) = client.into_split();
        let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
        let (from_server, to_server) = server.into_split();
        tokio::spawn(pass_requests(
            from_client,
            to_server,
            Arc::clone(&to_client),
            passage.clone(),
            asked,
        ));
        tokio::spawn(pass_answers(
            from_server,
            to_client,
            passage.clone(),
            answering,
        ));
    }
}

/// A request begins a chunk, because its predecessor on the connection was answered before.
async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    to_client: ToClient,
    passage: Passage,
    asked: watch::Sender<String>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        if let Some(request) = request(&buffer[..count]) {
            asked.send_replace(format!("{} {}", request.method, request.path));
            let fault = passage.fault_of(&request.path);
            lock(&passage.requests).push(request);
            match fault {
                None => {}
                Some(Fault::Slow(millis)) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                Some(Fault::Closed) => return,
                Some(Fault::Status(status, code)) => {
                    let answer = refusal(status, code);
                    // A client that is gone needs no answer.
                    let _ = to_client.lock().await.write_all(answer.as_bytes()).await;
                    return;
                }
                Some(Fault::Claimed) => {
                    // A client that is gone needs no answer.
                    let _ = to_client.lock().await.write_all(CLAIM.as_bytes()).await;
                    return;
                }
                Some(Fault::BlackHole) => {
                    while let Ok(1..) = client.read(&mut buffer).await {}
                    return;
                }
            }
        }
        if server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn pass_answers(
    mut server: OwnedReadHalf,
    client: ToClient,
    passage: Passage,
    mut asked: watch::Receiver<String>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut passed = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        if asked.has_changed().unwrap_or(false) {
            passed = 0;
        }
        let request = asked.borrow_and_update().clone();
        if !passage.wait_to_pass(&request, passed + count).await {
            return;
        }
        passed += count;
        if client
            .lock()
            .await
            .write_all(&buffer[..count])
            .await
            .is_err()
        {
            return;
        }
    }
}

const CLAIM: &str =
    "HTTP/1.1 200 OK\r\nETag: \"claimed\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// An answer as S3 gives it, after which the connection ends.
fn refusal(status: u16, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>planted by the test</Message></Error>");
    format!(
        "HTTP/1.1 {status} Trouble\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Passage {
    fn fault_of(&self, path: &str) -> Option<Fault> {
        let faults = lock(&self.faults);
        let planted = faults.iter().find(|(fragment, _)| path.contains(fragment));
        planted.map(|(_, fault)| *fault)
    }

    /// Whether the bytes may pass in the end.
    async fn wait_to_pass(&self, request: &str, bytes: usize) -> bool {
        let mut hold = self.hold.subscribe();
        let holds = |hold: &Option<Hold>| {
            hold.as_ref().is_some_and(|hold| {
                request.starts_with("GET ")
                    && request.contains(&hold.path)
                    && bytes > hold.after_bytes
            })
        };
        if !holds(&hold.borrow_and_update()) {
            return true;
        }
        self.held.send_replace(true);
        // An error means that the gate is gone, and with it the hold.
        let _ = hold.wait_for(|hold| !holds(hold)).await;
        !self.cut.load(Ordering::SeqCst)
    }
}

fn request(chunk: &[u8]) -> Option<Request> {
    let text = String::from_utf8_lossy(chunk);
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    if !METHODS.contains(&method) || words.next() != Some("HTTP/1.1") {
        return None;
    }
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: lines
            .take_while(|line| !line.is_empty())
            .map(str::to_lowercase)
            .collect(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
