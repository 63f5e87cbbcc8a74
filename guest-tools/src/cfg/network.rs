//! One entry of `vif = [ ... ]`: `key=value`, separated by commas, as xl-network-configuration(5) has it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The bridge of a network that names none, as with xl.
const DEFAULT_BRIDGE: &str = "xenbr0";
/// The longest name of a network interface (IFNAMSIZ less the NUL).
const MAX_INTERFACE: usize = 15;

/// A network interface of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its address; one that follows from the domain's name if none was given.
    pub mac: Option<Mac>,
    /// The bridge in dom0 that it is plugged into.
    pub bridge: String,
    /// IP addresses that the guest is to use; told in the store.
    pub ip: Vec<IpAddr>,
    /// The name of its other end in dom0, instead of vifDOMAIN.NUMBER.
    pub interface: Option<String>,
    /// How fast the guest may send.
    pub rate: Option<Rate>,
    /// The largest packet, bytes.
    pub mtu: Option<u32>,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// So many bytes in each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes that may go out in an interval.
    pub bytes: u32,
    /// The interval, microseconds.
    pub interval_us: u32,
}

impl Mac {
    /// From six hexadecimal bytes with colons; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let byte = |part: &&str| {
            (part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(part, 16).ok())?
        };
        let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
        let Some(Ok(bytes)) = bytes.map(<[u8; 6]>::try_from) else {
            return Err(format!("`{text}` is no MAC address; it must look like 00:16:3e:01:02:03"));
        };
        if bytes[0] & 1 != 0 {
            return Err(format!("the MAC address {text} is a multicast one: its first byte must be even"));
        }
        Ok(Mac(bytes))
    }

    /// Xen's prefix 00:16:3e and three bytes that follow from the domain's name and the interface's number: the same at each
    /// start, so that the guest and its DHCP server know each other again.
    pub fn of(name: &str, number: u32) -> Self {
        // FNV-1a with 64 bits; all of them take part in the three that are used.
        let hash = name
            .bytes()
            .chain([0])
            .chain(number.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let folded = hash ^ hash >> 24 ^ hash >> 48;
        let [a, b, c, ..] = folded.to_le_bytes();
        Mac([0x00, 0x16, 0x3e, a, b, c])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Mac::parse(&text)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl Rate {
    /// `10Mb/s`, `250KB/s@20ms`; the error says what is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let read = || -> Option<Rate> {
            let (speed, interval) = text.split_once('@').unwrap_or((text, "50ms"));
            let (value, unit) = speed.strip_suffix("/s")?.split_at_checked(digits(speed))?;
            let (factor, unit) = match unit.split_at_checked(1)? {
                ("K", unit) => (1_000, unit),
                ("M", unit) => (1_000_000, unit),
                ("G", unit) => (1_000_000_000, unit),
                _ => (1, unit),
            };
            let per_second = match unit {
                "B" => value.parse::<u64>().ok()?.checked_mul(factor)?,
                "b" => value.parse::<u64>().ok()?.checked_mul(factor)? / 8,
                _ => return None,
            };
            let (value, unit) = interval.split_at_checked(digits(interval))?;
            let factor = match unit {
                "us" => 1,
                "ms" => 1_000,
                "s" => 1_000_000,
                _ => return None,
            };
            let interval_us = value.parse::<u32>().ok()?.checked_mul(factor).filter(|us| *us > 0)?;
            let bytes = u128::from(per_second) * u128::from(interval_us) / 1_000_000;
            Some(Rate { bytes: u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)?, interval_us })
        };
        read().ok_or_else(|| format!("the rate `{text}` must look like 10Mb/s, 250KB/s or 1MB/s@20ms"))
    }
}

/// How many digits a text begins with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Can an interface have this name?
pub fn check_interface(name: &str) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if name.is_empty() || name.len() > MAX_INTERFACE || !name.chars().all(usable) || name == "." || name == ".." {
        return Err(format!(
            "`{name}` is no interface's name: 1 to {MAX_INTERFACE} characters, none of them a blank, / or :"
        ));
    }
    Ok(())
}

impl Network {
    /// Reads an entry; the error says what is wrong with it, without its place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut network = Network {
            mac: None,
            bridge: DEFAULT_BRIDGE.into(),
            ip: Vec::new(),
            interface: None,
            rate: None,
            mtu: None,
        };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!("`{word}` is no key=value, such as bridge={DEFAULT_BRIDGE}"));
            };
            network.named(key.trim(), value.trim())?;
        }
        Ok(network)
    }

    fn named(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("mac", _) => self.mac = Some(Mac::parse(value)?),
            ("bridge", _) => {
                check_interface(value)?;
                self.bridge = value.to_owned();
            }
            ("vifname", _) => {
                check_interface(value)?;
                self.interface = Some(value.to_owned());
            }
            ("ip", _) => {
                let address = |word: &str| {
                    let bare = word.split_once('/').map_or(word, |(address, _)| address);
                    bare.parse().map_err(|_| format!("`{word}` is no IP address"))
                };
                self.ip = value.split_whitespace().map(address).collect::<Result<_, _>>()?;
            }
            ("rate", _) => self.rate = Some(Rate::parse(value)?),
            ("mtu", _) => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                self.mtu = Some(mtu.ok_or_else(|| format!("`mtu` is `{value}` and may be 68 to 65535"))?);
            }
            // xl's default script does what is done here anyhow; and what is said of emulated cards does not matter to PV.
            ("script", "vif-bridge" | "/etc/xen/scripts/vif-bridge") | ("type", "vif" | "netfront") | ("model", _) => {}
            ("backend", "0" | "Domain-0") | ("devid", _) => {}
            ("script", _) => {
                return Err(format!("not supported: script={value}; vif-bridge's work is done without a script"));
            }
            ("type", _) => {
                return Err(format!("not supported: type={value}; PV guests have type=vif"));
            }
            ("backend", _) => {
                return Err(format!("not supported: backend={value}; networks come from dom0 only"));
            }
            ("gatewaydev" | "netdev" | "trusted" | "forwarddev" | "vlan", _) => {
                return Err(format!("not supported: `{key}`; take it out"));
            }
            _ if key.starts_with("colo") => {
                return Err(format!("not supported: `{key}`; take it out"));
            }
            _ => {
                return Err(format!("unknown key `{key}`; there are mac, bridge, ip, vifname, rate, mtu and script"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        Network::parse(text).unwrap_err()
    }

    #[test]
    fn what_people_write() {
        let plain = Network::parse("").unwrap();
        assert_eq!((plain.mac, plain.bridge.as_str()), (None, "xenbr0"));
        let all = Network::parse(
            "mac=00:16:3E:aa:BB:01, bridge=br0, ip=10.0.0.2 fd00::2, script=vif-bridge,vifname=web,rate=10Mb/s,mtu=9000,model=e1000",
        )
        .unwrap();
        assert_eq!(all.mac.unwrap().to_string(), "00:16:3e:aa:bb:01");
        assert_eq!(all.ip, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!((all.bridge.as_str(), all.interface.as_deref(), all.mtu), ("br0", Some("web"), Some(9000)));
    }

    #[test]
    fn rates() {
        let rate = |text: &str| Rate::parse(text).map(|r| (r.bytes, r.interval_us)).ok();
        assert_eq!(rate("10Mb/s"), Some((62_500, 50_000)));
        assert_eq!(rate("250KB/s"), Some((12_500, 50_000)));
        assert_eq!(rate("1MB/s@20ms"), Some((20_000, 20_000)));
        assert_eq!(rate("1Gb/s@1s"), Some((125_000_000, 1_000_000)));
        for bad in
            ["", "10", "10Mb", "Mb/s", "10Xb/s", "10Mb/s@", "10Mb/s@0ms", "1b/s", "99999999999999999999B/s", "10é/s"]
        {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_follow_from_names() {
        let mac = Mac::of("web", 0);
        assert!(mac.to_string().starts_with("00:16:3e:"));
        assert_eq!(mac, Mac::of("web", 0));
        assert_ne!(mac, Mac::of("web", 1));
        assert_ne!(mac, Mac::of("wec", 0));
        // Written down: a change of the rule would give every guest another address.
        assert_eq!(mac.to_string(), MAC_OF_WEB);
    }

    const MAC_OF_WEB: &str = "00:16:3e:c2:0e:0f";

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            error("mac=00:16:3e:1:2:3"),
            "`00:16:3e:1:2:3` is no MAC address; it must look like 00:16:3e:01:02:03"
        );
        assert_eq!(
            error("mac=01:16:3e:01:02:03"),
            "the MAC address 01:16:3e:01:02:03 is a multicast one: its first byte must be even"
        );
        assert_eq!(error("bridge"), "`bridge` is no key=value, such as bridge=xenbr0");
        assert_eq!(
            error("bridge=a/b"),
            "`a/b` is no interface's name: 1 to 15 characters, none of them a blank, / or :"
        );
        assert_eq!(error("ip=10.0.0"), "`10.0.0` is no IP address");
        assert_eq!(
            error("script=vif-route"),
            "not supported: script=vif-route; vif-bridge's work is done without a script"
        );
        assert_eq!(error("bridg=x"), "unknown key `bridg`; there are mac, bridge, ip, vifname, rate, mtu and script");
        assert_eq!(error("mtu=5"), "`mtu` is `5` and may be 68 to 65535");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC,=:@/]{0,60}") {
            let _ = Network::parse(&text);
            let _ = Rate::parse(&text);
        }
    }
}
