//! CURVE: the controller's key pair, kept in the profile so that it survives restarts, and the list of those who may connect.
//! Keys are never logged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pointsman_core::net::files::{read_json, write_atomically};
use pointsman_core::net::{Clock, Complaints, Tally};
use serde::{Deserialize, Serialize};

use crate::config::Curve;

/// The domain of our sockets in the authentication protocol.
const DOMAIN: &str = "pointsman";

/// A server's side of CURVE.
pub(super) struct CurveServer {
    public: String,
    secret: Vec<u8>,
    /// Whether a list of keys decides who may connect.
    is_restricted: bool,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    curve_publickey: String,
    curve_secretkey: String,
}

impl CurveServer {
    /// The keys that are configured, or kept in the profile, or made now and kept there. Nothing if encryption is off.
    pub(super) fn new(config: &Curve, key_file: &Path) -> anyhow::Result<Option<CurveServer>> {
        if !config.enabled {
            return Ok(None);
        }
        if zmq::has("curve") != Some(true) {
            bail!(
                "CURVE is enabled, but this program was built without it: build with `cargo build --release --config core/curve.toml` \
                 on a machine with libzmq3-dev, or leave --enable-curve and IPP_ENABLE_CURVE out"
            );
        }
        let (public, secret) = match (&config.public_key, &config.secret_key) {
            (Some(public), Some(secret)) => (public.clone(), secret.clone()),
            (None, None) => kept_or_fresh(key_file)?,
            _ => bail!("curve.public_key and curve.secret_key belong together: give both or none"),
        };
        check("curve.public_key", &public)?;
        for key in &config.allowed_keys {
            check("curve.allowed_keys", key)?;
        }
        let secret = decode(&secret).context("curve.secret_key is not a CURVE key of 40 Z85 characters")?;
        Ok(Some(CurveServer { public, secret, is_restricted: !config.allowed_keys.is_empty() }))
    }

    /// The key that peers must know.
    pub(super) fn public_key(&self) -> &str {
        &self.public
    }

    /// Makes a socket a server, before it is bound.
    pub(super) fn arm(&self, socket: &zmq::Socket) -> Result<(), zmq::Error> {
        socket.set_curve_server(true)?;
        socket.set_curve_secretkey(&self.secret)?;
        if self.is_restricted {
            socket.set_zap_domain(DOMAIN)?;
        }
        Ok(())
    }
}

fn kept_or_fresh(path: &Path) -> anyhow::Result<(String, String)> {
    if path.exists() {
        let kept: KeyFile = read_json(path)?;
        return Ok((kept.curve_publickey, kept.curve_secretkey));
    }
    let pair = zmq::CurveKeyPair::new().context("no CURVE keys can be made")?;
    let encode = |key: &[u8]| zmq::z85_encode(key).context("a CURVE key that can not be written");
    let keys = KeyFile { curve_publickey: encode(&pair.public_key)?, curve_secretkey: encode(&pair.secret_key)? };
    let text = serde_json::to_string_pretty(&keys)?;
    write_atomically(path, &text).with_context(|| format!("CURVE keys {}", path.display()))?;
    tracing::info!("made CURVE keys, kept in {}", path.display());
    Ok((keys.curve_publickey, keys.curve_secretkey))
}

fn decode(key: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = zmq::z85_decode(key).context("not Z85")?;
    if bytes.len() != 32 {
        bail!("not 32 bytes");
    }
    Ok(bytes)
}

fn check(setting: &str, key: &str) -> anyhow::Result<()> {
    decode(key).with_context(|| format!("{setting}: '{key}' is not a CURVE key of 40 Z85 characters"))?;
    Ok(())
}

/// Where keys are kept.
pub(super) fn key_file(security: &Path, cluster_id: Option<&str>) -> PathBuf {
    security.join(match cluster_id {
        Some(id) => format!("ipcontroller-{id}-curve.json"),
        None => "ipcontroller-curve.json".into(),
    })
}

/// Decides who may connect (ZeroMQ RFC 27): those whose key is on the list. Bound before any socket that asks.
pub(super) struct Gate {
    socket: zmq::Socket,
    allowed: BTreeSet<Vec<u8>>,
}

impl Gate {
    /// A gate for these keys; nothing if anybody may connect who knows the controller's key.
    pub(super) fn new(context: &zmq::Context, config: &Curve) -> anyhow::Result<Option<Gate>> {
        if !config.enabled || config.allowed_keys.is_empty() {
            return Ok(None);
        }
        let socket = context.socket(zmq::REP)?;
        socket.bind("inproc://zeromq.zap.01").context("the gate for CURVE keys can not listen")?;
        let allowed = config.allowed_keys.iter().map(|key| decode(key)).collect::<anyhow::Result<_>>()?;
        Ok(Some(Gate { socket, allowed }))
    }

    /// Answers until told to stop.
    pub(super) fn serve(&self, stop: &pointsman_core::net::Mailbox<()>, tally: &Tally) -> anyhow::Result<()> {
        let mut told = Vec::new();
        let (clock, mut complaints) = (Clock::default(), Complaints::new("gate", tally));
        loop {
            let mut items = [zmq::PollItem::from_fd(stop.fd(), zmq::POLLIN), self.socket.as_poll_item(zmq::POLLIN)];
            match zmq::poll(&mut items, -1) {
                Ok(_) | Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            stop.take(1, &mut told);
            if told.pop().is_some() {
                return Ok(());
            }
            let request = match self.socket.recv_multipart(zmq::DONTWAIT) {
                Ok(request) => request,
                Err(zmq::Error::EAGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            // version, request id, domain, address, identity, mechanism, key
            let is_allowed = matches!(&request[..], [_, _, domain, _, _, mechanism, key]
                if domain == DOMAIN.as_bytes() && mechanism == b"CURVE" && self.allowed.contains(key));
            let id = request.get(1).cloned().unwrap_or_default();
            let (code, text) = if is_allowed { ("200", "OK") } else { ("400", "key not allowed") };
            if !is_allowed {
                let address = request.get(3).map(|address| String::from_utf8_lossy(address).into_owned()).unwrap_or_default();
                complaints.note(
                    clock.now(),
                    "turned away",
                    format_args!("{address}: its CURVE key is not in curve.allowed_keys"),
                );
            }
            let reply: [&[u8]; 6] = [b"1.0", &id, code.as_bytes(), text.as_bytes(), b"", b""];
            self.socket.send_multipart(reply, 0)?;
        }
    }
}
