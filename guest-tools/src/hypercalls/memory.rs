//! memory_op and the grant table's frames.

use pv_abi::grant::{self, QuerySize, SetupTable};
use pv_abi::hypercall::nr;
use pv_abi::ids::{DomId, Mfn};
use pv_abi::memory as abi;
use rustix::io::Errno;

use super::{CallError, Hypervisor, Result};
use crate::privcmd::Foreign;

impl Hypervisor {
    /// Gives `domain` one extent of 2^`order` pages for each of its PFNs in `pfns`, and tells each extent's first frame. The
    /// answer is shorter where memory ran out.
    pub fn populate(&self, domain: DomId, order: u32, pfns: &[u64]) -> Result<Vec<Mfn>> {
        let op = "memory for the domain (populate_physmap)";
        let mut extents = self.privcmd.buffer(size_of_val(pfns)).map_err(|errno| CallError { op, errno })?;
        extents.put(pfns);
        let mut reservation = abi::Reservation {
            extent_start: extents.addr(),
            nr_extents: pfns.len() as u64,
            extent_order: order,
            domid: domain.0,
            ..Default::default()
        };
        let done =
            self.with_struct(op, nr::MEMORY_OP, &mut reservation, |addr| [abi::OP_POPULATE_PHYSMAP, addr, 0, 0, 0])?;
        let done = usize::try_from(done).unwrap_or(0).min(pfns.len());
        Ok(extents.get_slice::<u64>(done).into_iter().map(Mfn).collect())
    }

    /// Tells the guest a memory map of one range of RAM, `bytes` long: room to grow into.
    pub fn set_memory_map(&self, domain: DomId, bytes: u64) -> Result<()> {
        let op = "the domain's memory map (set_memory_map)";
        let mut entries = self.privcmd.buffer(size_of::<abi::E820Entry>()).map_err(|errno| CallError { op, errno })?;
        entries.put(&abi::E820Entry::new(0, bytes, abi::E820_RAM));
        let map = abi::MemoryMap { nr_entries: 1, pad: 0, buffer: entries.addr() };
        let mut map = abi::ForeignMemoryMap { domid: domain.0, map, ..Default::default() };
        self.with_struct(op, nr::MEMORY_OP, &mut map, |addr| [abi::OP_SET_MEMORY_MAP, addr, 0, 0, 0]).map(drop)
    }

    /// Pages of a domain's grant table: the hypervisor's, shown to the guest.
    pub fn grant_frames(&self, domain: DomId) -> Result<u32> {
        let op = "the size of the domain's grant table (query_size)";
        let mut size = QuerySize { dom: domain.0, ..Default::default() };
        self.with_struct(op, nr::GRANT_TABLE_OP, &mut size, |addr| [grant::OP_QUERY_SIZE, addr, 1, 0, 0])?;
        match size.status {
            grant::ST_OKAY => Ok(size.nr_frames),
            _ => Err(CallError { op, errno: Errno::INVAL }),
        }
    }

    /// Maps the first page of a domain's grant table.
    pub fn map_grant_table(&self, domain: DomId) -> Result<Foreign> {
        let op = "the domain's grant table (acquire_resource)";
        match self.privcmd.map_resource(domain, abi::RESOURCE_GRANT_TABLE, abi::GRANT_TABLE_SHARED, 0) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.map_grant_table_by_frame(domain),
            result => result.map_err(|errno| CallError { op, errno }),
        }
    }

    /// The same for hypervisors that do not know resources.
    fn map_grant_table_by_frame(&self, domain: DomId) -> Result<Foreign> {
        let op = "the domain's grant table (setup_table)";
        let frames = self.privcmd.buffer(8).map_err(|errno| CallError { op, errno })?;
        let mut table = SetupTable { dom: domain.0, nr_frames: 1, frame_list: frames.addr(), ..Default::default() };
        self.with_struct(op, nr::GRANT_TABLE_OP, &mut table, |addr| [grant::OP_SETUP_TABLE, addr, 1, 0, 0])?;
        if table.status != grant::ST_OKAY {
            return Err(CallError { op, errno: Errno::INVAL });
        }
        self.map_foreign(domain, &[Mfn(frames.get())])
    }
}
