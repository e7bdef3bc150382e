//! A TCP listener that bounds how many connections are open and how long one may be silent; `axum::serve` bounds neither.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// The listener; connections beyond its bound wait in the kernel's queue.
pub(super) struct Connections {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    max_silence: Duration,
}

/// One connection, holding its slot until it is dropped.
pub(super) struct Connection {
    stream: TcpStream,
    max_silence: Duration,
    silent_until: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, max_open: usize, max_silence: Duration) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(max_open)),
            max_silence,
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // axum's `accept` logs an error, such as too many open files, and tries again.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            max_silence: self.max_silence,
            silent_until: Box::pin(sleep(self.max_silence)),
            _slot: slot,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connection {
    /// Passes progress on and starts the silence anew; fails once there was none for too long.
    fn unless_silent<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            let silent_until = Instant::now() + self.max_silence;
            self.silent_until.as_mut().reset(silent_until);
            return progress;
        }
        ready!(self.silent_until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.unless_silent(cx, progress)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_silent(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn listen(max_open: usize, max_silence: Duration) -> Connections {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Connections::new(listener, max_open, max_silence)
    }

    #[tokio::test]
    async fn a_silent_connection_fails_and_one_that_speaks_does_not() {
        let mut connections = listen(1, Duration::from_millis(500)).await;
        let address = connections.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut connection, _) = connections.accept().await;
        for _ in 0..4 {
            let speak = async {
                sleep(Duration::from_millis(150)).await;
                client.write_all(b"x").await.unwrap();
            };
            let (heard, ()) = tokio::join!(connection.read_u8(), speak);
            assert_eq!(heard.unwrap(), b'x');
        }
        let silent = timeout(SOON, connection.read_u8()).await.unwrap();
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_waits_until_another_ends() {
        let mut connections = listen(1, SOON).await;
        let address = connections.local_addr().unwrap();
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let (first, _) = connections.accept().await;
        let waits = timeout(Duration::from_millis(30), connections.accept()).await;
        assert!(waits.is_err(), "the second is not accepted yet");
        drop(first);
        assert!(timeout(SOON, connections.accept()).await.is_ok());
    }
}
