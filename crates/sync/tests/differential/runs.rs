//! One run: a scenario, a seed, a script of random steps, and the judgement at the end.

use automerge::ReadDoc;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::server::{Ours, Server, TheCrate};
use crate::world::{Traffic, Wire};

const STEPS: usize = 300;
/// A run that is not silent after so many messages without an edit loops.
const TAIL_MAX: u64 = 400;

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub version_1: bool,
    pub stale_states: bool,
    pub lost_documents: bool,
    pub restored_server: bool,
    pub reopened: bool,
    pub read_only: bool,
    pub refusals: bool,
    pub crate_as_server: bool,
}

impl Scenario {
    pub fn plain() -> Self {
        Self {
            version_1: false,
            stale_states: false,
            lost_documents: false,
            restored_server: false,
            reopened: false,
            read_only: false,
            refusals: false,
            crate_as_server: false,
        }
    }

    pub fn everything() -> Self {
        Self {
            stale_states: true,
            lost_documents: true,
            restored_server: true,
            reopened: true,
            read_only: true,
            ..Self::plain()
        }
    }
}

struct Run {
    random: SmallRng,
    clients: Vec<Client>,
    wires: Vec<Wire>,
    server: Box<dyn Server>,
    next_session: u64,
    traffic: Traffic,
}

pub fn run(scenario: Scenario, seed: u64) -> Result<Traffic, String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let count = random.random_range(2..=4);
    let clients = (0..count)
        .map(|number| Client::new(number, scenario.version_1 && number % 2 == 0))
        .collect();
    let server: Box<dyn Server> = if scenario.crate_as_server {
        Box::new(TheCrate::default())
    } else {
        Box::new(Ours::new(scenario.refusals))
    };
    let wires = (0..count).map(|_| Wire::default()).collect();
    let traffic = Traffic::default();
    let mut run = Run { random, clients, wires, server, next_session: 0, traffic };
    for _ in 0..STEPS {
        run.step(scenario)?;
    }
    run.heal()?;
    Ok(run.traffic)
}

impl Run {
    fn step(&mut self, scenario: Scenario) -> Result<(), String> {
        let at = self.random.random_range(0..self.clients.len());
        if self.server.upkeep(&mut self.random, scenario.restored_server) {
            (0..self.clients.len()).for_each(|at| self.disconnect(at, scenario));
        }
        match self.random.random_range(0..100) {
            0..15 => {
                self.clients[at].edit(&mut self.random);
                self.client_speaks(at);
            }
            15..45 => self.deliver_up(at)?,
            45..75 => self.deliver_down(at)?,
            75..88 => self.server_speaks(at)?,
            88..91 => self.disconnect(at, scenario),
            91..94 => {
                self.clients[at].save_state();
                self.clients[at].remember_document();
            }
            94 if scenario.lost_documents && self.wires[at].session.is_none() => {
                self.clients[at].lose_document(&mut self.random);
            }
            95 if scenario.reopened => {
                if self.random.random_range(0..2) == 0 {
                    self.clients[at].lose_document(&mut self.random);
                }
                self.clients[at].open_again();
                // What is on its way reaches the new state, as it does on a real connection.
                self.client_speaks(at);
            }
            96 if scenario.read_only => {
                self.clients[at].toggle_read_only();
                self.client_speaks(at);
            }
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, at: usize) {
        if self.wires[at].session.is_none() {
            self.next_session += 1;
            self.wires[at].session = Some(self.next_session);
            self.server.open(self.next_session);
        }
    }

    fn disconnect(&mut self, at: usize, scenario: Scenario) {
        if let Some(session) = self.wires[at].session.take() {
            self.server.close(session);
        }
        self.wires[at] = Wire::default();
        let stale = scenario.stale_states && self.random.random_range(0..2) == 0;
        self.clients[at].reconnect(stale, &mut self.random);
    }

    fn client_speaks(&mut self, at: usize) {
        self.connect(at);
        if let Some(message) = self.clients[at].generate() {
            self.traffic.messages += 1;
            self.traffic.bytes_up += message.len() as u64;
            self.wires[at].up.push_back(message);
        }
    }

    fn server_speaks(&mut self, at: usize) -> Result<(), String> {
        let Some(session) = self.wires[at].session else { return Ok(()) };
        if let Some(message) = self.server.answer(session) {
            self.server.judge(&message)?;
            self.traffic.messages += 1;
            self.traffic.bytes_down += message.len() as u64;
            self.wires[at].down.push_back(message);
        }
        Ok(())
    }

    fn deliver_up(&mut self, at: usize) -> Result<(), String> {
        let Some(session) = self.wires[at].session else { return Ok(()) };
        let Some(message) = self.wires[at].up.pop_front() else { return Ok(()) };
        self.server
            .receive(session, &message, &mut self.random)
            .map_err(|why| format!("the server on a message of client {at}: {why}"))
    }

    fn deliver_down(&mut self, at: usize) -> Result<(), String> {
        let Some(message) = self.wires[at].down.pop_front() else { return Ok(()) };
        self.clients[at].receive(&message).map_err(|why| format!("client {at}: {why}"))?;
        self.client_speaks(at);
        Ok(())
    }

    /// Faults end; everyone connects, and falls silent. Then readers become writers again, and
    /// everyone falls silent once more, with the same document.
    fn heal(&mut self) -> Result<(), String> {
        let before = self.traffic.messages;
        self.quieten()?;
        for at in 0..self.clients.len() {
            if self.clients[at].read_only {
                self.clients[at].toggle_read_only();
                self.client_speaks(at);
            }
        }
        self.quieten()?;
        self.traffic.tail = self.traffic.messages - before;
        self.judge()
    }

    fn quieten(&mut self) -> Result<(), String> {
        for at in 0..self.clients.len() {
            self.client_speaks(at);
        }
        let before = self.traffic.messages;
        loop {
            let mut busy = false;
            for at in 0..self.clients.len() {
                while !self.wires[at].up.is_empty() {
                    busy = true;
                    self.deliver_up(at)?;
                }
            }
            self.server.settle();
            for at in 0..self.clients.len() {
                self.server_speaks(at)?;
                while !self.wires[at].down.is_empty() {
                    busy = true;
                    self.deliver_down(at)?;
                }
            }
            let tail = self.traffic.messages - before;
            if tail > TAIL_MAX {
                return Err(format!("not silent after {tail} messages"));
            }
            if !busy {
                return Ok(());
            }
        }
    }

    fn judge(&self) -> Result<(), String> {
        let refused = self.server.refused();
        let heads = self.server.heads();
        for (at, client) in self.clients.iter().enumerate() {
            if refused.is_empty() {
                if client.heads() != heads {
                    return Err(format!(
                        "client {at} has {:?}, the server {heads:?}",
                        client.heads()
                    ));
                }
                continue;
            }
            // With refusals a client also keeps what the server did not take: all else is equal.
            let missing = heads.iter().find(|head| client.doc.get_change_by_hash(head).is_none());
            if let Some(missing) = missing {
                return Err(format!("client {at} lacks {missing}"));
            }
            for change in client.doc.get_changes(&heads) {
                if !refused.contains(&change.hash()) {
                    return Err(format!("the server lacks {} of client {at}", change.hash()));
                }
            }
        }
        Ok(())
    }
}
