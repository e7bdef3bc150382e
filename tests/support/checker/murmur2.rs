//! The Java client's default partitioner, written down a second time from Kafka's
//! `org.apache.kafka.common.utils.Utils.murmur2`, so that the checker owes nothing to the code it checks.

pub fn partition_of(key: &str, partitions: i32) -> i32 {
    (hash(key.as_bytes()) & i32::MAX) % partitions
}

/// Java's `int` arithmetic wraps; `>>>` is a shift of the unsigned value.
pub fn hash(data: &[u8]) -> i32 {
    const M: i32 = 0x5bd1_e995;
    let unsigned_shift = |value: i32, bits: u32| ((value as u32) >> bits) as i32;
    let mut h = 0x9747_b28c_u32 as i32 ^ data.len() as i32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let k = i32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ unsigned_shift(k, 24)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            h ^= i32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ unsigned_shift(h, 13)).wrapping_mul(M);
    h ^ unsigned_shift(h, 15)
}
