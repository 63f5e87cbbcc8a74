//! A domain's memory, while it runs: its balloon and its limit.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use pv_abi::ids::{DomId, PAGE_SIZE};

use crate::cli::Wait;
use crate::hypercalls::Hypervisor;
use crate::progress::Progress;
use crate::xs::Store;
use crate::{find, nodes, stored};

/// How often to look how far a balloon is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What a domain may have beyond its limit, KiB: its ballooning is not exact to the page.
const SLACK_KIB: u64 = 1024;
/// A balloon that is this near to its aim, in pages, is there.
const NEAR: u64 = 256;

/// KiB from a number of MiB, or one with a unit; the error says what is wrong.
fn parse_memory(text: &str) -> Result<u64, String> {
    let read = || -> Option<u64> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let factor = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "" | "m" => 1 << 10,
            "k" => 1,
            "g" => 1 << 20,
            "t" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).filter(|kib| (1024..=1 << 44).contains(kib))
    };
    read().ok_or_else(|| {
        format!("`{text}` is no amount of memory; it must look like 512 (MiB), 512M or 2G, and be at least 1 MiB")
    })
}

fn read_kib(store: &mut Store, domain: DomId, name: &str) -> Result<Option<u64>> {
    Ok(store.read(&format!("{}/memory/{name}", nodes::root(domain)))?.and_then(|text| text.parse().ok()))
}

/// `dom mem-set`.
pub fn set(hypervisor: &Hypervisor, store: &mut Store, which: &str, amount: &str, wait: Wait) -> Result<()> {
    let kib = parse_memory(amount).map_err(|what| anyhow!(what))?;
    let info = find::domain(hypervisor, store, which)?;
    super::check_running(&info, which)?;
    let domain = DomId(info.domain);
    if domain != DomId::DOM0
        && let Some(most) = read_kib(store, domain, "static-max")?.filter(|most| kib > *most)
    {
        bail!(
            "domain `{which}` may have {} MiB at most and not {}; `maxmem` in its configuration says how much",
            most / 1024,
            kib / 1024
        );
    }
    let now = info.tot_pages * PAGE_SIZE / 1024;
    let machine = hypervisor.physinfo()?;
    let free = (machine.free_pages + machine.scrub_pages) * PAGE_SIZE / 1024;
    if kib.saturating_sub(now) > free {
        bail!(
            "domain `{which}` needs {} MiB more and {} MiB are free; take memory from another domain first",
            (kib - now) / 1024,
            free / 1024
        );
    }
    // The limit follows, so that a guest does not take back what it was to give; it comes first when more is to be had.
    let limit = |hypervisor: &Hypervisor| match domain {
        DomId::DOM0 => Ok(()),
        _ => hypervisor.set_max_memory(domain, kib + SLACK_KIB),
    };
    if kib > now {
        limit(hypervisor)?;
    }
    store.write(&format!("{}/memory/target", nodes::root(domain)), &kib.to_string())?;
    if kib <= now {
        limit(hypervisor)?;
    }
    stored::change(&info.handle, |config| config.memory = (kib / 1024).max(1))?;
    if !wait.wait {
        return Ok(());
    }
    wait_for(hypervisor, which, domain, kib * 1024 / PAGE_SIZE, wait.timeout)
}

fn wait_for(hypervisor: &Hypervisor, which: &str, domain: DomId, pages: u64, seconds: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let progress = Progress::new();
    loop {
        let Some(info) = hypervisor.domain_info(domain)? else { bail!("domain `{which}` is gone") };
        if info.tot_pages.abs_diff(pages) <= NEAR {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "domain `{which}` has {} MiB and is to have {}; it may need more itself, or has no balloon driver",
                info.tot_pages / 256,
                pages / 256
            );
        }
        progress.step(&format!("domain `{which}` has {} of {} MiB", info.tot_pages / 256, pages / 256));
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// `dom mem-max`: the hypervisor's limit, and what the guest's balloon may grow to.
pub fn max(hypervisor: &Hypervisor, store: &mut Store, which: &str, amount: &str) -> Result<()> {
    let kib = parse_memory(amount).map_err(|what| anyhow!(what))?;
    let info = super::guest(hypervisor, store, which, "its limit is the hypervisor's option dom0_mem")?;
    let domain = DomId(info.domain);
    let target = read_kib(store, domain, "target")?.unwrap_or(info.tot_pages * PAGE_SIZE / 1024);
    if kib < target {
        bail!(
            "domain `{which}` is to have {} MiB, more than {}; `dom mem-set` takes it away first",
            target / 1024,
            kib / 1024
        );
    }
    hypervisor.set_max_memory(domain, kib + SLACK_KIB)?;
    store.write(&format!("{}/memory/static-max", nodes::root(domain)), &kib.to_string())?;
    stored::change(&info.handle, |config| config.max_memory = (kib / 1024).max(config.memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, kib) in [
            ("512", 512 << 10),
            ("512M", 512 << 10),
            ("512mb", 512 << 10),
            ("2G", 2 << 20),
            ("2GiB", 2 << 20),
            ("2048k", 2048),
        ] {
            assert_eq!(parse_memory(text), Ok(kib), "{text}");
        }
        for bad in ["", "M", "0", "12X", "-5", "1.5G", "99999999999999999999", "1000k", "é"] {
            assert!(parse_memory(bad).unwrap_err().starts_with(&format!("`{bad}` is no amount of memory")), "{bad}");
        }
    }
}
