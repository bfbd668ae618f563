//! Copies of all traffic for whoever watches, as ipcontroller's queues show it to its hub: taps publish within this process, and one thread
//! passes that on to the address of `controller.monitor_url`. Nothing is copied while nobody has subscribed, and nobody is waited for.

use anyhow::Context as _;
use pointsman_core::net::Tally;
use pointsman_core::relay::{NoTap, Pairing, PublishTap, Relay, Watch};
use pointsman_schedulers::live::TaskWatch;

/// Where taps meet the thread.
const INSIDE: &str = "inproc://monitor";
/// Copies that may wait for a subscriber; what one that is further behind misses is counted.
pub(super) const BACKLOG: i32 = 10_000;

/// The sockets of a monitor: one for each tap, and two that bring them to the address.
pub(super) struct Monitor {
    collector: zmq::Socket,
    publisher: zmq::Socket,
    context: zmq::Context,
}

impl Monitor {
    /// With the socket that is bound to the address.
    ///
    /// # Errors
    /// If there are no more sockets.
    pub(super) fn new(context: &zmq::Context, publisher: zmq::Socket) -> anyhow::Result<Self> {
        let collector = context.socket(zmq::XSUB).context("the monitor")?;
        collector.set_rcvhwm(BACKLOG)?;
        collector.bind(INSIDE)?;
        Ok(Monitor { collector, publisher, context: context.clone() })
    }

    fn socket(&self) -> anyhow::Result<zmq::Socket> {
        let socket = self.context.socket(zmq::XPUB).context("the monitor")?;
        socket.set_sndhwm(BACKLOG)?;
        socket.set_linger(0)?;
        socket.connect(INSIDE)?;
        Ok(socket)
    }

    /// A relay's copies under these topics.
    ///
    /// # Errors
    /// If there are no more sockets.
    pub(super) fn tap(&self, into: &str, out: &str, tally: &Tally) -> anyhow::Result<PublishTap> {
        Ok(PublishTap::new(self.socket()?, into.as_bytes(), out.as_bytes())?.counted_as("monitor", tally))
    }

    /// The task scheduler's copies.
    ///
    /// # Errors
    /// If there are no more sockets.
    pub(super) fn of_tasks(&self, tally: &Tally) -> anyhow::Result<TaskWatch> {
        Ok(TaskWatch::new(Watch::new(self.socket()?)?.counted_as("monitor", tally)))
    }

    /// What brings copies out and subscriptions in.
    ///
    /// # Errors
    /// If an option can not be set.
    pub(super) fn relay(self) -> anyhow::Result<Relay<NoTap>> {
        Ok(Relay::new(self.collector, self.publisher, Pairing::Straight, NoTap)?)
    }
}
