//! `dom metrics`: what the domains use in the OpenMetrics text format, on stdout or over HTTP on the loopback interface.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::hypercalls::Hypervisor;
use crate::output;
use crate::stats::{self, Domain, Snapshot, Traffic};
use crate::xs::Store;

/// How long a client may take to ask and to read. One is served after the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most a request may have before its empty line.
const MAX_REQUEST: usize = 8192;
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A text under construction.
struct Text(String);

impl Text {
    /// A family of metrics, with one sample for each of its label sets. A counter's samples end in `_total`.
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl Iterator<Item = (String, String)>) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        // A String takes everything.
        let _ = writeln!(self.0, "# TYPE hospes_{name} {kind}\n# HELP hospes_{name} {help}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "hospes_{name}{suffix}{labels} {value}");
        }
    }

    fn single(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help, std::iter::once((String::new(), value.to_string())));
    }
}

fn labels(domain: &Domain) -> String {
    format!("domain=\"{}\",id=\"{}\"", escape(&domain.name), domain.id)
}

/// The whole text.
fn text(snapshot: &Snapshot) -> String {
    let mut text = Text(String::new());
    text.single("cpus", "CPUs of the machine.", snapshot.cpus.into());
    text.single("memory_bytes", "Memory of the machine.", snapshot.memory);
    text.single("memory_free_bytes", "Memory that no domain has.", snapshot.free);
    text.single("domains", "Domains, with domain 0.", snapshot.domains.len() as u64);
    let each = |value: fn(&Domain) -> String| {
        snapshot.domains.iter().map(move |domain| (format!("{{{}}}", labels(domain)), value(domain)))
    };
    text.family(
        "domain_state",
        "gauge",
        "1 for the state the domain is in.",
        snapshot
            .domains
            .iter()
            .map(|domain| (format!("{{{},state=\"{}\"}}", labels(domain), domain.state), "1".into())),
    );
    text.family(
        "domain_cpu_seconds",
        "counter",
        "CPU time used.",
        each(|domain| format!("{}.{:09}", domain.cpu_ns / 1_000_000_000, domain.cpu_ns % 1_000_000_000)),
    );
    text.family("domain_memory_bytes", "gauge", "Memory it has.", each(|domain| domain.memory.to_string()));
    text.family(
        "domain_memory_max_bytes",
        "gauge",
        "Memory it may have.",
        snapshot
            .domains
            .iter()
            .filter_map(|domain| Some((format!("{{{}}}", labels(domain)), domain.max_memory?.to_string()))),
    );
    text.family("domain_vcpus", "gauge", "vCPUs it uses.", each(|domain| domain.vcpus.to_string()));
    type Field = fn(&Traffic) -> u64;
    let disk: [(&str, &str, Field); 4] = [
        ("domain_disk_read_bytes", "Read from a disk.", |t| t.read),
        ("domain_disk_written_bytes", "Written to a disk.", |t| t.written),
        ("domain_disk_reads", "Read requests to a disk.", |t| t.reads),
        ("domain_disk_writes", "Write requests to a disk.", |t| t.writes),
    ];
    let network: [(&str, &str, Field); 4] = [
        ("domain_network_received_bytes", "Received on a network interface.", |t| t.read),
        ("domain_network_sent_bytes", "Sent on a network interface.", |t| t.written),
        ("domain_network_received_packets", "Packets received on a network interface.", |t| t.reads),
        ("domain_network_sent_packets", "Packets sent on a network interface.", |t| t.writes),
    ];
    let of = |domain: &'_ Domain, devices: &[(String, Traffic)], label: &str, field: Field| -> Vec<(String, String)> {
        let sample = |(name, traffic): &(String, Traffic)| {
            (format!("{{{},{label}=\"{}\"}}", labels(domain), escape(name)), field(traffic).to_string())
        };
        devices.iter().map(sample).collect()
    };
    for (name, help, field) in disk {
        text.family(name, "counter", help, snapshot.domains.iter().flat_map(|d| of(d, &d.disks, "disk", field)));
    }
    for (name, help, field) in network {
        text.family(
            name,
            "counter",
            help,
            snapshot.domains.iter().flat_map(|d| of(d, &d.networks, "interface", field)),
        );
    }
    text.0.push_str("# EOF\n");
    text.0
}

/// `dom metrics`.
pub fn metrics(hypervisor: &Hypervisor, store: &mut Store, listen: Option<SocketAddr>) -> Result<()> {
    let Some(address) = listen else {
        output::line(text(&stats::snapshot(hypervisor, store)?).trim_end());
        return Ok(());
    };
    if !address.ip().is_loopback() {
        bail!(
            "{address} is not of the loopback interface: use 127.0.0.1 or [::1], and a proxy with access control for others"
        );
    }
    let listener = TcpListener::bind(address).with_context(|| format!("{address} cannot be listened at"))?;
    if let Ok(address) = listener.local_addr() {
        eprintln!("dom: serving http://{address}/metrics");
    }
    for client in listener.incoming() {
        // What goes wrong with one client is that client's business.
        let Ok(client) = client else { continue };
        let _ = serve(client, || Ok(text(&stats::snapshot(hypervisor, store)?)));
    }
    Ok(())
}

/// A request's first line, once all of the request has come.
fn request_line(client: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = client.read(&mut bytes).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(bytes.get(..count)?);
        if request.len() > MAX_REQUEST {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&request).lines().next()?.to_owned())
}

/// Answer's status, type and body.
fn answer(line: &str, body: impl FnOnce() -> Result<String>) -> (&'static str, &'static str, String) {
    let mut words = line.split_whitespace();
    let plain = "text/plain; charset=utf-8";
    match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/metrics" | "/")) => match body() {
            Ok(body) => ("200 OK", CONTENT_TYPE, body),
            Err(e) => ("500 Internal Server Error", plain, format!("{e:#}\n")),
        },
        (Some("GET" | "HEAD"), Some(_)) => ("404 Not Found", plain, "the figures are at /metrics\n".into()),
        (Some(_), Some(_)) => ("405 Method Not Allowed", plain, "only GET\n".into()),
        _ => ("400 Bad Request", plain, "no HTTP request\n".into()),
    }
}

fn serve(mut client: TcpStream, body: impl FnOnce() -> Result<String>) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let line = request_line(&mut client).unwrap_or_default();
    let (status, kind, body) = answer(&line, body);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    if !line.starts_with("HEAD ") {
        client.write_all(body.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::example;

    #[test]
    fn the_format() {
        let mut snapshot = example();
        snapshot.domains[1].name = "we\"b".into();
        let text = text(&snapshot);
        for line in [
            "# TYPE hospes_memory_free_bytes gauge",
            "hospes_memory_free_bytes 1073741824",
            "# TYPE hospes_domain_cpu_seconds counter",
            "hospes_domain_cpu_seconds_total{domain=\"Domain-0\",id=\"0\"} 17.250000000",
            "hospes_domain_cpu_seconds_total{domain=\"we\\\"b\",id=\"3\"} 1.500000000",
            "hospes_domain_memory_max_bytes{domain=\"we\\\"b\",id=\"3\"} 101711872",
            "hospes_domain_disk_written_bytes_total{domain=\"we\\\"b\",id=\"3\",disk=\"xvda\"} 1048576",
            "hospes_domain_network_sent_packets_total{domain=\"we\\\"b\",id=\"3\",interface=\"0\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
        assert!(!text.contains("hospes_domain_memory_max_bytes{domain=\"Domain-0\""));
        // A family is told of once, and all of its samples follow.
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut unique = types.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(types.len(), unique.len());
    }

    #[test]
    fn answers_over_http() {
        let of = |line: &str| answer(line, || Ok("x".into())).0;
        assert_eq!(of("GET /metrics HTTP/1.1"), "200 OK");
        assert_eq!(of("GET /etc/passwd HTTP/1.1"), "404 Not Found");
        assert_eq!(of("POST /metrics HTTP/1.1"), "405 Method Not Allowed");
        assert_eq!(of(""), "400 Bad Request");
        assert_eq!(answer("GET / HTTP/1.0", || bail!("no store")).2, "no store\n");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            std::thread::spawn(move || serve(listener.accept().unwrap().0, || Ok("figures\n".into())).unwrap());
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        server.join().unwrap();
        assert!(
            reply.starts_with("HTTP/1.1 200 OK\r\n")
                && reply.ends_with("Content-Length: 8\r\nConnection: close\r\n\r\nfigures\n"),
            "{reply}"
        );
        assert!(request_line(&mut vec![b'x'; 2 * MAX_REQUEST].as_slice()).is_none());
    }
}
