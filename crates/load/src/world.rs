//! Many clients at once: who they are, what they wait for, and what is measured of them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::net::{ConnId, Handler, Net, Output};
use crate::session::{Session, Standing};

/// What a client does of its own accord.
#[derive(Clone, Copy)]
pub enum Duty {
    /// Nothing, it reads.
    Read,
    /// Nothing, it types when it is told to.
    Paced,
    /// Types up to `to`, `batch` edits a message, never more than `window` ahead of what the
    /// server has acknowledged.
    Write {
        /// Edits in all.
        to: usize,
        /// Edits in one message.
        batch: usize,
        /// Edits without acknowledgement.
        window: usize,
    },
}

/// The clients and the loop that runs them.
pub struct World {
    net: Net,
    clients: Clients,
    server: SocketAddr,
}

/// What is measured while the meter runs.
pub struct Meter {
    /// From sending a change to its arrival at one reader, one value for each such delivery.
    pub latency: Histogram,
    /// Deliveries of measured changes.
    pub deliveries: u64,
    /// Of these, the ones that arrived before the window ended.
    pub deliveries_in_window: u64,
    /// Changes that the server acknowledged before the window ended.
    pub acked_in_window: u64,
    first: usize,
    window_end: Instant,
}

struct Client {
    session: Box<dyn Session>,
    document: usize,
    duty: Duty,
    goal: Option<usize>,
    began: Instant,
}

struct Clients {
    all: Vec<Option<Client>>,
    waiting: usize,
    opens: Histogram,
    failure: Option<String>,
    meter: Option<Meter>,
    stamps: HashMap<usize, Stamps>,
}

/// When the changes of a document were sent, from the `first` on.
struct Stamps {
    first: usize,
    sent: Vec<Instant>,
}

impl World {
    /// No client yet; all will go to `server`.
    ///
    /// # Errors
    /// If the kernel refuses what an event loop needs.
    pub fn new(server: SocketAddr) -> Result<Self, String> {
        let clients = Clients {
            all: Vec::new(),
            waiting: 0,
            opens: Histogram::new(),
            failure: None,
            meter: None,
            stamps: HashMap::new(),
        };
        Ok(Self { net: Net::new().map_err(|error| error.to_string())?, clients, server })
    }

    /// Connects a client to document number `document`. It is waited for until it holds (a
    /// reader) or the server has acknowledged (a writer) `goal` edits.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn connect(
        &mut self,
        session: Box<dyn Session>,
        document: usize,
        duty: Duty,
        goal: usize,
    ) -> Result<ConnId, String> {
        self.connect_from(Ipv4Addr::LOCALHOST, session, document, duty, Some(goal))
    }

    /// The same to another server.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn connect_to(
        &mut self,
        server: SocketAddr,
        session: Box<dyn Session>,
        document: usize,
        duty: Duty,
        goal: usize,
    ) -> Result<ConnId, String> {
        let id = self.net.connect(Ipv4Addr::LOCALHOST, server).map_err(|it| it.to_string())?;
        self.enter(id, session, document, duty, Some(goal));
        Ok(id)
    }

    /// The same from another loopback address, and perhaps waited for only later.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn connect_from(
        &mut self,
        from: Ipv4Addr,
        session: Box<dyn Session>,
        document: usize,
        duty: Duty,
        goal: Option<usize>,
    ) -> Result<ConnId, String> {
        let id = self.net.connect(from, self.server).map_err(|error| error.to_string())?;
        self.enter(id, session, document, duty, goal);
        Ok(id)
    }

    fn enter(
        &mut self,
        id: ConnId,
        session: Box<dyn Session>,
        document: usize,
        duty: Duty,
        goal: Option<usize>,
    ) {
        if self.clients.all.len() <= id {
            self.clients.all.resize_with(id + 1, || None);
        }
        self.clients.waiting += usize::from(goal.is_some());
        let client = Client { session, document, duty, goal, began: Instant::now() };
        self.clients.all[id] = Some(client);
    }

    /// Closes a client's connection.
    pub fn close(&mut self, id: ConnId) {
        if let Some(client) = self.clients.all[id].take() {
            self.clients.waiting -= usize::from(client.goal.is_some());
            self.net.close(id);
        }
    }

    /// Clients that have not reached their goals.
    pub fn waiting(&self) -> usize {
        self.clients.waiting
    }

    /// Connections that are not open yet.
    pub fn connecting(&self) -> usize {
        self.net.connecting()
    }

    /// How long it took each client from its connection to its goal.
    pub fn opens(&self) -> &Histogram {
        &self.clients.opens
    }

    /// How far a client is.
    pub fn standing(&self, id: ConnId) -> Standing {
        self.clients.all[id].as_ref().map(|client| client.session.standing()).unwrap_or_default()
    }

    /// Whether a client has reached its goal.
    pub fn done(&self, id: ConnId) -> bool {
        self.clients.all[id].as_ref().is_some_and(|client| client.goal.is_none())
    }

    /// Asks a checker whether its document says `text`.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, id: ConnId, text: &str) -> Result<(), String> {
        self.clients.all[id].as_ref().ok_or("the checker has gone")?.session.check(text)
    }

    /// Gives a client another goal.
    pub fn aim(&mut self, id: ConnId, goal: usize) {
        let clients = &mut self.clients;
        if let Some(client) = &mut clients.all[id] {
            clients.waiting -= usize::from(client.goal.is_some());
            client.goal = (client.progress() < goal).then_some(goal);
            clients.waiting += usize::from(client.goal.is_some());
        }
    }

    /// Starts measuring deliveries of every change from number `first` on.
    pub fn measure(&mut self, first: usize, window: Duration) {
        self.clients.meter = Some(Meter {
            latency: Histogram::new(),
            deliveries: 0,
            deliveries_in_window: 0,
            acked_in_window: 0,
            first,
            window_end: Instant::now() + window,
        });
    }

    /// Ends measuring. Panics unless it was started.
    pub fn measured(&mut self) -> Meter {
        self.clients.meter.take().expect("the meter runs")
    }

    /// For deliveries that never came: what is sure is that they took longer than until now.
    pub fn missing(&mut self, document: usize, held: usize, total: usize) -> u64 {
        let (meter, stamps) = (&mut self.clients.meter, &self.clients.stamps);
        let (Some(meter), Some(stamps)) = (meter, stamps.get(&document)) else { return 0 };
        let missing = held.max(meter.first)..total;
        for sent in missing.clone().filter_map(|at| stamps.at(at)) {
            meter.latency.record(sent.elapsed());
        }
        missing.len() as u64
    }

    /// Lets a paced client type up to `to`, one change a message.
    pub fn write(&mut self, id: ConnId, to: usize) {
        let clients = &mut self.clients;
        let Some(client) = &mut clients.all[id] else { return };
        let first = client.session.standing().sent;
        let stamps = clients.stamps.entry(client.document);
        stamps.or_insert_with(|| Stamps::from(first)).fill(to, Instant::now());
        self.net.send(id, |out| client.session.write_up_to(to, 1, out));
    }

    /// Lets a client type as fast as the window allows, up to `to`.
    pub fn let_write(&mut self, id: ConnId, to: usize, batch: usize, window: usize) {
        let clients = &mut self.clients;
        let Some(client) = &mut clients.all[id] else { return };
        client.duty = Duty::Write { to, batch, window };
        let standing = client.session.standing();
        let stamps = clients.stamps.entry(client.document);
        let limit = to.min(standing.acked + window);
        stamps.or_insert_with(|| Stamps::from(standing.sent)).fill(limit, Instant::now());
        self.net.send(id, |out| client.session.write_up_to(limit, batch, out));
    }

    /// Lets a writing client stop where it is.
    pub fn stop(&mut self, id: ConnId) {
        if let Some(client) = &mut self.clients.all[id] {
            client.duty = Duty::Paced;
        }
    }

    /// Runs until `until`.
    ///
    /// # Errors
    /// If a client failed or was cut off.
    pub fn run_until(&mut self, until: Instant) -> Result<(), String> {
        loop {
            self.turn(until)?;
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Runs until nobody waits. Returns false if that has not come by `deadline`.
    ///
    /// # Errors
    /// If a client failed or was cut off.
    pub fn run_until_all_done(&mut self, deadline: Instant) -> Result<bool, String> {
        while self.clients.waiting > 0 {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.turn(deadline)?;
        }
        Ok(true)
    }

    /// Waits for what comes next, at most until `until`.
    ///
    /// # Errors
    /// If a client failed or was cut off.
    pub fn turn(&mut self, until: Instant) -> Result<(), String> {
        self.net.turn(&mut self.clients, until).map_err(|error| error.to_string())?;
        match self.clients.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Client {
    /// What its goal is compared with.
    fn progress(&self) -> usize {
        let standing = self.session.standing();
        if matches!(self.duty, Duty::Read) { standing.held } else { standing.acked }
    }
}

impl Clients {
    fn advance(&mut self, id: ConnId, data: &[u8], out: &mut Output) -> Result<(), String> {
        let Some(client) = &mut self.all[id] else { return Ok(()) };
        let now = Instant::now();
        let before = client.session.standing();
        client.session.message(data, out)?;
        let after = client.session.standing();
        match client.duty {
            Duty::Read => {
                if let Some(meter) = &mut self.meter
                    && let Some(stamps) = self.stamps.get(&client.document)
                {
                    meter.delivered(before.held..after.held, stamps, now);
                }
            }
            Duty::Write { to, batch, window } if after.ready => {
                let limit = to.min(after.acked + window);
                if limit > after.sent {
                    if self.meter.is_some() {
                        let stamps = self.stamps.entry(client.document);
                        stamps.or_insert_with(|| Stamps::from(after.sent)).fill(limit, now);
                    }
                    client.session.write_up_to(limit, batch, out);
                }
            }
            Duty::Write { .. } | Duty::Paced => {}
        }
        client.session.settle(out);
        if let Some(meter) = &mut self.meter
            && now <= meter.window_end
        {
            meter.acked_in_window += (after.acked - before.acked) as u64;
        }
        if client.goal.is_some_and(|goal| client.progress() >= goal) {
            client.goal = None;
            self.waiting -= 1;
            self.opens.record(now - client.began);
        }
        Ok(())
    }
}

impl Meter {
    fn delivered(&mut self, places: std::ops::Range<usize>, stamps: &Stamps, now: Instant) {
        for at in places.start.max(self.first)..places.end {
            if let Some(sent) = stamps.at(at) {
                self.latency.record(now.saturating_duration_since(sent));
                self.deliveries += 1;
                self.deliveries_in_window += u64::from(now <= self.window_end);
            }
        }
    }
}

impl Handler for Clients {
    fn opened(&mut self, id: ConnId, out: &mut Output) {
        if let Some(client) = &mut self.all[id] {
            client.session.opened(out);
        }
    }

    fn message(&mut self, id: ConnId, data: &[u8], out: &mut Output) {
        if let Err(why) = self.advance(id, data, out) {
            self.failure.get_or_insert(why);
        }
    }

    fn closed(&mut self, id: ConnId, why: &str) {
        if let Some(client) = self.all[id].take() {
            self.waiting -= usize::from(client.goal.is_some());
            self.failure.get_or_insert(why.to_owned());
        }
    }
}

impl Stamps {
    fn from(first: usize) -> Self {
        Self { first, sent: Vec::new() }
    }

    fn at(&self, place: usize) -> Option<Instant> {
        self.sent.get(place.checked_sub(self.first)?).copied()
    }

    fn fill(&mut self, to: usize, now: Instant) {
        self.sent.resize(to.saturating_sub(self.first), now);
    }
}
