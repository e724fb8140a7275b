//! A TCP proxy in front of a broker or an instance, which can let any failure of a network happen. What it stands before must be known to all by the
//! address of the proxy: the broker's advertised listener, the `server.advertise` of an instance.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::service::pause;

/// The number of Kafka's request that ends a transaction.
const END_TXN: [u8; 2] = 26u16.to_be_bytes();

/// The first version of that request which ends with tagged fields, of which there are none: one byte more.
const END_TXN_WITH_TAGS: u16 = 3;

/// What is lost of the commit of a transaction. From then on nothing gets through at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The request: the transaction stays open.
    Request,
    /// The answer: the transaction has ended, and nobody knows.
    Answer,
}

pub(crate) struct Proxy {
    port: u16,
    network: Arc<Network>,
}

/// Everything between clients and broker.
#[derive(Default)]
struct Network {
    broker_port: AtomicU16,
    delay_ms: AtomicU64,
    /// What a connection carries from the broker to a client in a second; 0 is any amount.
    answer_bytes_per_second: AtomicU64,
    /// Whatever is sent is swallowed, and no connection ends.
    is_silent: AtomicBool,
    /// Nobody listens.
    refuses: AtomicBool,
    armed: Mutex<Option<Loss>>,
    /// Whether what clients send are Kafka's requests, which can be told apart.
    is_of_kafka: bool,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Proxy {
    /// A proxy of a broker that has nobody to lead to yet.
    pub(crate) fn start() -> Self {
        Self::start_with(Network { is_of_kafka: true, ..Network::default() })
    }

    /// A proxy that carries anything to that port.
    pub(crate) fn before(port: u16) -> Self {
        let proxy = Self::start_with(Network::default());
        proxy.lead_to(port);
        proxy
    }

    fn start_with(network: Network) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, network) = (listener.local_addr().unwrap().port(), Arc::new(network));
        let of_listener = network.clone();
        std::thread::spawn(move || of_listener.listen(listener));
        Self { port, network }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn leads_to(&self) -> u16 {
        self.network.broker_port.load(Ordering::SeqCst)
    }

    pub(crate) fn lead_to(&self, broker_port: u16) {
        self.network.broker_port.store(broker_port, Ordering::SeqCst);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        for (client, broker) in self.network.connections.lock().unwrap().drain(..) {
            // Those that have ended already cannot be ended again.
            let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
        }
    }

    /// Ends one direction of every connection: by turns what clients send, and what they are sent.
    pub(crate) fn half_close(&self) {
        for (number, (client, broker)) in self.network.connections.lock().unwrap().iter().enumerate() {
            let _ = if number % 2 == 0 { client.shutdown(Shutdown::Write) } else { broker.shutdown(Shutdown::Write) };
        }
    }

    /// Holds back whatever is sent, in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.network.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Lets each connection carry only so many bytes a second from the broker to its client.
    pub(crate) fn throttle(&self, bytes_per_second: u64) {
        self.network.answer_bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Waits for the commit of a transaction, loses it, and is silent from then on.
    pub(crate) fn lose_commit(&self, loss: Loss) {
        self.arm(loss);
        self.wait_until_silent();
    }

    /// Loses the next commit of a transaction, and is silent from then on.
    pub(crate) fn arm(&self, loss: Loss) {
        *self.network.armed.lock().unwrap() = Some(loss);
    }

    /// Swallows whatever is sent, and whatever new connections send. No connection ends.
    pub(crate) fn fall_silent(&self) {
        self.network.is_silent.store(true, Ordering::SeqCst);
    }

    /// Ends all connections, and for some time nobody listens: it looks as if the process at the other end had ended.
    pub(crate) fn refuse_for(&self, time: Duration) {
        self.network.refuses.store(true, Ordering::SeqCst);
        // It has to notice.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.cut();
        pause(time);
        self.network.refuses.store(false, Ordering::SeqCst);
    }

    pub(crate) fn wait_until_silent(&self) {
        let began = Instant::now();
        while !self.network.is_silent.load(Ordering::SeqCst) {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody commits a transaction");
            pause(Duration::from_millis(5));
        }
    }

    /// Lets everything through again. What was swallowed stays lost, so that every connection has to begin anew.
    pub(crate) fn heal(&self) {
        self.network.is_silent.store(false, Ordering::SeqCst);
        self.delay(Duration::ZERO);
        self.throttle(0);
        self.cut();
    }
}

impl Network {
    /// Takes connections, but for the times when nobody is to listen.
    fn listen(self: Arc<Self>, mut listener: TcpListener) {
        let address = listener.local_addr().unwrap();
        loop {
            let client = listener.accept();
            if self.refuses.load(Ordering::SeqCst) {
                drop((client, listener));
                while self.refuses.load(Ordering::SeqCst) {
                    pause(Duration::from_millis(5));
                }
                listener = TcpListener::bind(address).unwrap();
            } else if let Ok((client, _)) = client {
                self.connect(client);
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(broker) = TcpStream::connect(("127.0.0.1", self.broker_port.load(Ordering::SeqCst))) else { return };
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        let double = |stream: &TcpStream| stream.try_clone().unwrap();
        self.connections.lock().unwrap().push((double(&client), double(&broker)));
        let (requests, answers) = (self.clone(), self.clone());
        let (from_client, to_broker) = (double(&client), double(&broker));
        // Each ends with its connection.
        std::thread::spawn(move || match requests.is_of_kafka {
            true => requests.carry_requests(from_client, to_broker),
            false => requests.carry(from_client, to_broker),
        });
        std::thread::spawn(move || answers.carry(broker, client));
    }

    /// Request by request, since they are looked at.
    fn carry_requests(&self, mut from: TcpStream, mut to: TcpStream) -> Option<()> {
        loop {
            let Some(request) = read_request(&mut from) else {
                let _ = to.shutdown(Shutdown::Write);
                return None;
            };
            self.wait();
            let passes = match self.loss_of(&request) {
                Some(loss) => loss == Loss::Answer,
                None => !self.is_silent.load(Ordering::SeqCst),
            };
            if passes {
                to.write_all(&request).ok()?;
            }
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) -> Option<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Some(length) = from.read(&mut buffer).ok().filter(|length| *length > 0) else {
                let _ = to.shutdown(Shutdown::Write);
                return None;
            };
            self.wait();
            self.wait_for_bandwidth(length);
            if !self.is_silent.load(Ordering::SeqCst) {
                to.write_all(&buffer[..length]).ok()?;
            }
        }
    }

    fn wait(&self) {
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            pause(Duration::from_millis(delay));
        }
    }

    fn wait_for_bandwidth(&self, bytes: usize) {
        let bytes_per_second = self.answer_bytes_per_second.load(Ordering::SeqCst);
        if let Some(micros) = (bytes as u64 * 1_000_000).checked_div(bytes_per_second) {
            pause(Duration::from_micros(micros));
        }
    }

    /// What is to be lost of this request. It is silent before the request goes on, so that no answer can slip through.
    fn loss_of(&self, request: &[u8]) -> Option<Loss> {
        if !is_commit(request) {
            return None;
        }
        let loss = self.armed.lock().unwrap().take()?;
        self.is_silent.store(true, Ordering::SeqCst);
        Some(loss)
    }
}

/// Whether the request ends a transaction, and not by giving it up.
fn is_commit(request: &[u8]) -> bool {
    let number = |at: usize| Some(u16::from_be_bytes(request.get(at..at + 2)?.try_into().unwrap()));
    let behind = if number(6).is_some_and(|version| version >= END_TXN_WITH_TAGS) { 1 } else { 0 };
    request.get(4..6) == Some(&END_TXN) && request.iter().rev().nth(behind) == Some(&1)
}

/// A request with its length in front.
fn read_request(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = vec![0; 4];
    from.read_exact(&mut request).ok()?;
    let length = u32::from_be_bytes(request[..4].try_into().unwrap()) as usize;
    request.resize(4 + length, 0);
    from.read_exact(&mut request[4..]).ok()?;
    Some(request)
}
