//! An HTTP server that answers as a test says, and takes down what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub body: String,
}

pub struct Stub {
    pub endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Stub {
    pub async fn answering(
        answer: impl Fn(&Asked) -> (StatusCode, String) + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let taken = Arc::clone(&asked);
        let handler = async move |method: Method, body: Bytes| {
            let body = String::from_utf8_lossy(&body).into_owned();
            let request = Asked { method, body };
            let answer = answer(&request);
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push(request);
            answer
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            let router = Router::new().fallback(handler);
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            endpoint: format!("http://{address}"),
            asked,
            serving,
        }
    }

    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
