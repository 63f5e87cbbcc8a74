//! Event channels: every operation's result codes, and channels between two ends in one domain.
#![cfg_attr(target_os = "none", no_std, no_main)]
use guests::prelude::*;
use pv_abi::event::*;

guests::kernel!(run);

fn status(port: u32) -> (Ret, Status) {
    let mut s = Status { dom: 0x7ff0, port, ..Status::default() };
    (events::op(OP_STATUS, &mut s), s)
}

fn show(name: impl core::fmt::Display, port: u32) {
    let (r, s) = status(port);
    obs(f!("{name}: status"), r);
    if r == OK {
        obs(f!("{name}: kind, vcpu, union"), f!("{} {} {:#x} {:#x}", s.status, s.vcpu, s.u[0], s.u[1]));
    }
}

fn virq(virq: u32, vcpu: u32) -> (Ret, u32) {
    let mut b = BindVirq { virq, vcpu, port: 0 };
    (events::op(OP_BIND_VIRQ, &mut b), b.port)
}

fn run() {
    for p in [0u32, 1, 2, 4095, 4096, u32::MAX] {
        show(f!("port {p} at start"), p);
    }
    virqs();
    ipis();
    interdomain();
    pirqs();
    codes();
    exhaust();
}

fn virqs() {
    let mut ports = [0u32; 32];
    for v in 0..26u32 {
        let (r, port) = virq(v, 0);
        obs(f!("bind virq {v}"), r);
        if r == OK {
            ports[v as usize] = port;
            show(f!("virq {v}"), port);
            obs(f!("bind virq {v} again"), virq(v, 0).0);
            obs(f!("send to virq {v}"), events::send(port));
        }
    }
    for v in [0u32, 1, 2] {
        obs(f!("bind virq {v} of an absent vcpu"), virq(v, 40).0);
        obs(f!("bind virq {v} of vcpu 1"), virq(v, 1).0);
    }
    let mut b = BindVcpu { port: ports[0], vcpu: 0 };
    obs("bind_vcpu of a per-vcpu virq", events::op(OP_BIND_VCPU, &mut b));
    let mut b = BindVcpu { port: ports[2], vcpu: 0 };
    obs("bind_vcpu of a global virq", events::op(OP_BIND_VCPU, &mut b));
    let mut b = BindVcpu { port: ports[2], vcpu: 40 };
    obs("bind_vcpu to an absent vcpu", events::op(OP_BIND_VCPU, &mut b));
    for (v, p) in ports.iter().enumerate().filter(|(_, p)| **p != 0) {
        obs(f!("close virq {v}"), events::close(*p));
    }
}

fn ipis() {
    let port = events::bind_ipi(0);
    show("ipi", port);
    obs("send to an ipi", events::send(port));
    obs("it is pending", events::port_pending(port));
    let mut b = BindIpi { vcpu: 40, port: 0 };
    obs("bind_ipi to an absent vcpu", events::op(OP_BIND_IPI, &mut b));
    let mut b = BindVcpu { port, vcpu: 0 };
    obs("bind_vcpu of an ipi", events::op(OP_BIND_VCPU, &mut b));
    obs("close an ipi", events::close(port));
    obs("pending after the close", events::port_pending(port));
    obs("close it again", events::close(port));
    obs("send to a closed port", events::send(port));
    events::port_clear(port);
    events::quiet();
}

fn interdomain() {
    let alloc = |dom: u16, remote_dom: u16| {
        let mut a = AllocUnbound { dom, remote_dom, port: 0 };
        (events::op(OP_ALLOC_UNBOUND, &mut a), a.port)
    };
    let bind = |remote_dom: u16, remote_port: u32| {
        let mut b = BindInterdomain { remote_dom, pad: 0, remote_port, local_port: 0 };
        (events::op(OP_BIND_INTERDOMAIN, &mut b), b.local_port)
    };
    for (name, dom, remote) in [
        ("self, self", 0x7ff0u16, 0x7ff0u16),
        ("self, 0", 0x7ff0, 0),
        ("0, self", 0, 0x7ff0),
        ("self, absent", 0x7ff0, 77),
        ("absent, self", 77, 0x7ff0),
        ("self, IO", 0x7ff0, 0x7ff1),
    ] {
        let (r, port) = alloc(dom, remote);
        obs(f!("alloc_unbound {name}"), r);
        if r == OK {
            show(f!("alloc_unbound {name}"), port);
            events::close(port).must("close");
        }
    }
    let (_, a) = alloc(0x7ff0, 0x7ff0);
    obs("send to an unbound port", events::send(a));
    obs("pending at the unbound port", events::port_pending(a));
    let (r, b) = bind(0x7ff0, a);
    expect("bind to it", r, OK);
    show("first end", a);
    show("second end", b);
    obs("pending at once at the first end", events::port_pending(a));
    obs("pending at once at the second end", events::port_pending(b));
    events::port_clear(a);
    events::port_clear(b);
    events::quiet();
    expect("send through the second end", events::send(b), OK);
    check("arrives at the first", events::port_pending(a) && !events::port_pending(b));
    events::port_clear(a);
    events::quiet();
    expect("send through the first end", events::send(a), OK);
    check("arrives at the second", events::port_pending(b) && !events::port_pending(a));
    events::port_clear(b);
    events::quiet();
    obs("bind to a bound port", bind(0x7ff0, a).0);
    obs("bind_vcpu of a bound port", events::op(OP_BIND_VCPU, &mut BindVcpu { port: a, vcpu: 0 }));
    expect("close the second end", events::close(b), OK);
    show("first end, the second closed", a);
    obs("send into the void", events::send(a));
    let (r, c) = bind(0x7ff0, a);
    obs("bind to the first end again", r);
    events::close(c).must("close");
    events::close(a).must("close");
    let (_, d) = alloc(0x7ff0, 77);
    obs("bind to a port meant for another", bind(0x7ff0, d).0);
    events::close(d).must("close");
    for (name, dom, port) in [
        ("absent domain", 77u16, 1u32),
        ("port 0", 0x7ff0, 0),
        ("free port", 0x7ff0, 900),
        ("port out of range", 0x7ff0, 4096),
        ("an ipi", 0x7ff0, events::bind_ipi(0)),
    ] {
        obs(f!("bind_interdomain {name}"), bind(dom, port).0);
    }
}

fn pirqs() {
    let bind = |pirq: u32, flags: u32| {
        let mut b = BindPirq { pirq, flags, port: 0 };
        (events::op(OP_BIND_PIRQ, &mut b), b.port)
    };
    for (name, pirq) in [("unmapped 200", 200u32), ("out of range", 100_000), ("the largest", u32::MAX)] {
        obs(f!("bind pirq {name}"), bind(pirq, 0).0);
    }
    let (r, port) = bind(5, BIND_PIRQ_WILL_SHARE);
    obs("bind pirq 5", r);
    if r == OK {
        show("pirq 5", port);
        obs("bind pirq 5 again", bind(5, 1).0);
        obs("send to a pirq", events::send(port));
        obs("close the pirq", events::close(port));
    }
}

fn codes() {
    for (name, port) in [("0", 0u32), ("free", 900), ("out of range", 4096), ("largest", u32::MAX)] {
        obs(f!("close port {name}"), events::close(port));
        obs(f!("send to port {name}"), events::send(port));
        obs(f!("unmask port {name}"), events::op(OP_UNMASK, &mut Unmask { port }));
        obs(f!("bind_vcpu of port {name}"), events::op(OP_BIND_VCPU, &mut BindVcpu { port, vcpu: 0 }));
        obs(f!("status of port {name}"), status(port).0);
    }
    for (name, dom) in [("absent", 77u16), ("own id", 0), ("IO", 0x7ff1), ("INVALID", 0x7ff4)] {
        let mut s = Status { dom, port: 1, ..Status::default() };
        obs(f!("status in domain {name}"), events::op(OP_STATUS, &mut s));
    }
    obs("reset of an absent domain", events::op(OP_RESET, &mut Reset { dom: 77 }));
    for cmd in 0..16u64 {
        obs(f!("op {cmd} with a bad pointer"), call(nr::EVENT_CHANNEL_OP, &[cmd, 0xffff_8300_0000_0000]));
        obs(f!("op {cmd} with a null pointer"), call(nr::EVENT_CHANNEL_OP, &[cmd, 0]));
    }
    for (name, gfn, offset, vcpu) in
        [("bad gfn", 0xfff_ffffu64, 0u32, 0u32), ("bad offset", 1, 4, 0), ("absent vcpu", 1, 0, 40)]
    {
        // control_gfn u64, offset u32, vcpu u32, link_bits u8
        let mut arg = [gfn, u64::from(offset) | u64::from(vcpu) << 32, 0];
        obs(f!("init_control {name}"), events::op(OP_INIT_CONTROL, &mut arg));
    }
    obs("expand_array", events::op(OP_EXPAND_ARRAY, &mut [1u64]));
    obs("set_priority", events::op(OP_SET_PRIORITY, &mut [1u32, 1]));
    // a bound interdomain port survives bad requests
    obs("unknown command, huge", call(nr::EVENT_CHANNEL_OP, &[u64::MAX, 0]));
}

fn exhaust() {
    let (mut n, mut last) = (0u32, OK);
    let mut highest = 0;
    loop {
        let mut a = AllocUnbound { dom: 0x7ff0, remote_dom: 77, port: 0 };
        let r = events::op(OP_ALLOC_UNBOUND, &mut a);
        if r != OK || n > 5000 {
            last = if r != OK { r } else { last };
            break;
        }
        n += 1;
        highest = highest.max(a.port);
    }
    expect("highest port", highest, 4095);
    expect("then", last, errno(ENOSPC));
    let mut closed = 0;
    for port in 1..4096u32 {
        let (r, s) = status(port);
        if r == OK && s.status == STATUS_UNBOUND && events::close(port) == OK {
            closed += 1;
        }
    }
    expect("all closed again", closed, n);
    obs("the lowest free port is used again", {
        let p = events::bind_ipi(0);
        events::close(p).must("close");
        p < 100
    });
}
