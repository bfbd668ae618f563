//! Whether a controller listens where a connection file says: one connection, and the first byte of ZMTP's greeting, which libzmq sends unasked.
//! It tells who is dead from who does not answer a key, and proves nothing about whose controller it is.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pointsman_core::connection_file::Common;

/// How a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Nobody listens there.
    Nobody,
    /// Something does that speaks ZMTP.
    Speaks,
    /// Something does that says nothing, or another thing; or the host can not be found.
    Unclear,
}

/// How long each step may take: the host is near, or a forward to it.
const STEP: Duration = Duration::from_millis(500);

/// Where clients of a file register, in words.
pub(crate) fn address(file: &Common) -> String {
    file.url(file.registration)
}

/// Tries to reach the hub of a connection file. Takes a second at most, beside the look-up of a name.
pub(crate) fn contact(file: &Common) -> Contact {
    if let Some(path) = file.interface.strip_prefix("ipc://") {
        return match UnixStream::connect(format!("{path}:{}", file.registration)) {
            Ok(stream) => greeting(&stream, |stream| stream.set_read_timeout(Some(STEP))),
            Err(_) => Contact::Nobody,
        };
    }
    let host = file.interface.split("://").nth(1).unwrap_or_default().trim_matches(['[', ']']);
    let is_everywhere = matches!(host, "0.0.0.0" | "*" | "::" | "");
    let own_name = gethostname::gethostname();
    let host = match is_everywhere {
        true if file.location.is_empty() || own_name.to_str() == Some(&file.location) => "127.0.0.1",
        true => &file.location,
        false => host,
    };
    let Some(address) = (host, file.registration).to_socket_addrs().ok().and_then(|mut all| all.next()) else {
        return Contact::Unclear;
    };
    match TcpStream::connect_timeout(&address, STEP) {
        Ok(stream) => greeting(&stream, |stream| stream.set_read_timeout(Some(STEP))),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Contact::Nobody,
        Err(_) => Contact::Unclear,
    }
}

fn greeting<S>(stream: &S, patient: impl FnOnce(&S) -> std::io::Result<()>) -> Contact
where
    for<'s> &'s S: Read,
{
    let mut first = [0; 1];
    let mut from = stream;
    match patient(stream).and_then(|()| from.read_exact(&mut first)) {
        Ok(()) if first == [0xff] => Contact::Speaks,
        _ => Contact::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::net::Clock;

    #[test]
    fn a_socket_that_listens_speaks_and_a_port_that_is_free_does_not() {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::ROUTER).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        let registration = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let mut file = Common { interface: "tcp://127.0.0.1".into(), registration, ..common() };
        assert_eq!(contact(&file), Contact::Speaks);
        file.interface = "tcp://0.0.0.0".into();
        assert_eq!(contact(&file), Contact::Speaks, "at {}", Clock::date());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        (file.registration, file.interface) = (free, "tcp://127.0.0.1".into());
        assert_eq!(contact(&file), Contact::Nobody);
        (file.interface, file.registration) = ("ipc:///nowhere/at/all".into(), 1);
        assert_eq!(contact(&file), Contact::Nobody);
    }

    fn common() -> Common {
        serde_json::from_str(
            r#"{"ssh": "", "interface": "", "location": "", "registration": 1, "control": 1, "mux": 1, "task": 1, "iopub": 1,
                "key": "", "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256"}"#,
        )
        .unwrap()
    }
}
