//! What a task of the load looks like on the wire: three buffers as a function's call has them. The first names the function, so that whoever tells tasks
//! apart by it sees as many functions as there are kinds; how long the task takes stands where arguments do.

/// The duration of a task that never ends, and does not keep its engine either.
pub(super) const NEVER_NS: u64 = u64::MAX;
/// What the first buffer of every task begins with.
const FUNCTION: &[u8] = b"pointsman bench ";
/// Place of the arguments among the buffers.
pub(super) const ARGUMENTS: usize = 2;

/// The three buffers of a task, of a size that does not change.
pub(super) struct Buffers {
    all: [Vec<u8>; 3],
    function: u64,
}

impl Buffers {
    /// Buffers of so many bytes together, or the few that a task needs.
    pub(super) fn new(payload_bytes: usize) -> Buffers {
        let mut all = [0; 3].map(|_| vec![b'x'; payload_bytes / 3]);
        let least = [FUNCTION.len() + 8, 0, 8];
        all.iter_mut().zip(least).for_each(|(buffer, least)| buffer.resize(buffer.len().max(least), b'x'));
        all[0][..FUNCTION.len()].copy_from_slice(FUNCTION);
        Buffers { all, function: u64::from_le_bytes(*b"xxxxxxxx") }
    }

    /// Those of a task that calls a function and takes so long.
    pub(super) fn of(&mut self, function: u64, length_ns: u64) -> impl Iterator<Item = &[u8]> {
        if function != self.function {
            self.function = function;
            self.all[0][FUNCTION.len()..FUNCTION.len() + 8].copy_from_slice(&function.to_le_bytes());
        }
        self.all[ARGUMENTS][..8].copy_from_slice(&length_ns.to_le_bytes());
        self.all.iter().map(Vec::as_slice)
    }
}

/// How long a task takes, by its arguments.
pub(super) fn length_ns(arguments: &[u8]) -> u64 {
    arguments.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pointsman_schedulers::live::FactReader;

    use super::*;

    #[test]
    fn a_scheduler_sees_as_many_functions_as_there_are_kinds() {
        for payload_bytes in [0, 24, 450, 100_000] {
            let (mut buffers, mut reader) = (Buffers::new(payload_bytes), FactReader::default());
            let mut classes = HashSet::new();
            for task in 0..100 {
                let told: Vec<Vec<u8>> = buffers.of(task % 3, 1000 * task).map(<[u8]>::to_vec).collect();
                assert_eq!(length_ns(&told[ARGUMENTS]), 1000 * task);
                classes.insert(reader.class_of(told.into_iter().map(Into::into)));
            }
            assert_eq!(classes.len(), 3, "{payload_bytes} bytes");
        }
    }
}
