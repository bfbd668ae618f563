//! Which program made a result: its version and what its executable holds. Another build may decide otherwise, so its results are its own. Nothing is
//! read here but what is handed in.

use std::io::Read;

use sha2::{Digest as _, Sha256};

/// A build of a program that runs experiments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    version: String,
    executable: String,
}

impl Program {
    /// Of a version, and the bytes of the executable.
    ///
    /// # Errors
    /// If those can not be read.
    pub fn of(version: &str, executable: impl Read) -> std::io::Result<Program> {
        Ok(Program { version: version.to_owned(), executable: digest(executable)? })
    }

    /// The version, as it was given.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The executable's SHA-256, in hex.
    pub fn executable(&self) -> &str {
        &self.executable
    }

    /// What results are marked with: the version and the beginning of the hash.
    pub fn mark(&self) -> String {
        format!("{}+{}", self.version, &self.executable[..16])
    }
}

/// SHA-256 of all that can be read, in hex.
pub(super) fn digest(mut from: impl Read) -> std::io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(const_hex::encode(hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_byte_is_another_program() {
        let [a, b] = [b"one", b"two"].map(|bytes| Program::of("0.1.0", &bytes[..]).unwrap());
        assert_ne!(a.mark(), b.mark());
        assert!(a.mark().starts_with("0.1.0+") && a.executable().len() == 64);
        assert_eq!(digest(&b"abc"[..]).unwrap()[..16], *"ba7816bf8f01cfea");
    }
}
