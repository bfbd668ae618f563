//! What a user may call an address (an IP, everywhere, a host's name, a network interface's), as what sockets bind and what peers are told.
//! Names are looked up once, at the start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};

use anyhow::bail;

/// An address of this machine, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As it stands in an endpoint: IPv6 in brackets.
    bound: String,
    /// As peers connect to it, which is the same but for everything: that they replace by a name of this machine.
    told: String,
    ip: IpAddr,
}

impl Address {
    /// Looks up what a setting says.
    ///
    /// # Errors
    /// If it is no address and nobody's name; says what this machine has.
    pub(super) fn resolve(setting: &str, text: &str) -> anyhow::Result<Address> {
        let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if text == "*" {
            return Ok(Address { bound: text.into(), told: text.into(), ip: Ipv4Addr::UNSPECIFIED.into() });
        }
        if let Ok(ip) = plain.parse::<IpAddr>() {
            return Ok(Address::from(ip));
        }
        let interfaces = interfaces();
        // Of an interface's addresses the one that most peers can use; those of IPv6 that mean something only with a zone come last.
        let of_interface = interfaces.iter().filter(|(name, _)| name == text).map(|(_, ip)| *ip);
        if let Some(ip) = of_interface.min_by_key(|ip| (ip.is_ipv6(), is_link_local(*ip))) {
            return Ok(Address::from(ip));
        }
        let looked_up: Vec<IpAddr> = (plain, 0).to_socket_addrs().map(|all| all.map(|at| at.ip()).collect()).unwrap_or_default();
        let is_here = |ip: &&IpAddr| ip.is_loopback() || interfaces.iter().any(|(_, own)| own == *ip);
        let here = looked_up.iter().filter(is_here).min_by_key(|ip| ip.is_ipv6());
        match (here, looked_up.first()) {
            (Some(ip), _) => Ok(Address::from(*ip)),
            (None, Some(elsewhere)) => {
                bail!("{setting}: '{text}' is {elsewhere}, which is no address of this machine; it has {}", own(&interfaces))
            }
            (None, None) => bail!(
                "{setting}: '{text}' is no address, no name of a host that can be looked up, and no network interface; this machine has {}",
                own(&interfaces)
            ),
        }
    }

    /// As it stands in an endpoint to bind.
    pub(super) fn bound(&self) -> &str {
        &self.bound
    }

    /// As it stands in connection files.
    pub(super) fn told(&self) -> &str {
        &self.told
    }

    /// Without brackets.
    pub(super) fn plain(&self) -> String {
        if self.bound == "*" { self.bound.clone() } else { self.ip.to_string() }
    }

    /// Whether sockets must speak IPv6 for it.
    pub(super) fn is_ipv6(&self) -> bool {
        self.ip.is_ipv6()
    }

    /// Whether it is every address there is.
    pub(super) fn is_everywhere(&self) -> bool {
        self.ip.is_unspecified()
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let text = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        // A socket that listens on all of IPv6 hears IPv4 too, and `*` is what clients know how to replace.
        let told = if ip == Ipv6Addr::UNSPECIFIED { "*".into() } else { text.clone() };
        Address { bound: text, told, ip }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The network interfaces of this machine with their addresses; none if they can not be had.
fn interfaces() -> Vec<(String, IpAddr)> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter().map(|interface| (interface.name.clone(), interface.ip())).collect()
}

/// Interfaces in words.
fn own(interfaces: &[(String, IpAddr)]) -> String {
    let mut each: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, ip) in interfaces {
        match each.iter_mut().find(|(known, _)| known == name) {
            Some((_, ips)) => ips.push(ip.to_string()),
            None => each.push((name, vec![ip.to_string()])),
        }
    }
    let each = each.iter().map(|(name, ips)| format!("{name} ({})", ips.join(", ")));
    std::iter::once("* (all)".to_owned()).chain(each).collect::<Vec<_>>().join(", ")
}

/// Why an endpoint could not be bound, and what to do about it. `is_reused`: the port comes from the connection files of a former life.
pub(super) fn why_not_bound(error: zmq::Error, address: &Address, port: Option<u16>, is_reused: bool) -> String {
    let others = if is_reused {
        "the connection files name it: stop whoever has it, or start without --reuse and --restore"
    } else {
        "give others (--ports, controller.ports), or none for free ones"
    };
    match (error, port) {
        (zmq::Error::EADDRINUSE, Some(port)) => {
            format!("port {port} is in use: `ss -ltnp sport = {port}` says by whom; {others}")
        }
        (zmq::Error::EACCES, Some(port)) if port < 1024 => {
            format!("permission denied: ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE); {others}")
        }
        (zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV, _) => {
            format!("{} is no address of this machine; it has {}", address.plain(), own(&interfaces()))
        }
        (zmq::Error::EMFILE, _) => "no more files may be open: raise the limit (ulimit -n)".into(),
        (error, _) => error.to_string(),
    }
}

/// Whether only this machine can reach an address that somebody names, by what the name says.
pub(super) fn is_loopback(text: &str) -> bool {
    text == "localhost" || text.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_many_names() {
        for (text, bound, told, is_ipv6) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", false),
            ("localhost", "127.0.0.1", "127.0.0.1", false),
            ("lo", "127.0.0.1", "127.0.0.1", false),
            ("*", "*", "*", false),
            ("0.0.0.0", "0.0.0.0", "0.0.0.0", false),
            ("::1", "[::1]", "[::1]", true),
            ("[::1]", "[::1]", "[::1]", true),
            ("::", "[::]", "*", true),
            ("192.0.2.77", "192.0.2.77", "192.0.2.77", false),
        ] {
            let address = Address::resolve("controller.ip", text).unwrap();
            assert_eq!((address.bound(), address.told(), address.is_ipv6()), (bound, told, is_ipv6), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_those_that_there_are() {
        let error = Address::resolve("controller.ip", "no-such-interface").unwrap_err().to_string();
        assert!(error.contains("controller.ip: 'no-such-interface'") && error.contains("lo (127.0.0.1"), "{error}");
    }

    #[test]
    fn what_can_not_be_bound_says_what_to_do() {
        let address = Address::from(IpAddr::from([192, 0, 2, 77]));
        let says = |error, port, is_reused| why_not_bound(error, &address, port, is_reused);
        assert!(
            says(zmq::Error::EADDRINUSE, Some(99), false).contains("`ss -ltnp sport = 99` says by whom; give others (--ports")
        );
        assert!(says(zmq::Error::EADDRINUSE, Some(99), true).contains("start without --reuse"));
        assert!(says(zmq::Error::EACCES, Some(99), false).contains("below 1024"));
        assert!(
            says(zmq::Error::EADDRNOTAVAIL, None, false)
                .contains("192.0.2.77 is no address of this machine; it has * (all), lo (")
        );
    }

    #[test]
    fn only_this_machine_reaches_loopback() {
        for (text, is_local) in
            [("127.0.0.9", true), ("lo", true), ("::1", true), ("::", false), ("*", false), ("192.0.2.77", false)]
        {
            assert_eq!(Address::resolve("controller.ip", text).unwrap().is_loopback(), is_local, "{text}");
        }
        assert!(is_loopback("localhost") && is_loopback("[::1]") && !is_loopback("lo") && !is_loopback("10.0.0.1"));
    }
}
