//! Where an order goes.

pub use postal::Address;
use service::validate::Invalid;

/// The address as it is kept; records at `at` what the country's rules do not allow.
pub fn checked(address: Address, at: &str, invalid: &mut Invalid) -> Option<Address> {
    let refuse = |faults: Vec<postal::Fault>| {
        for fault in faults {
            invalid.push(format!("{at}/{}", fault.field), fault.code, fault.detail);
        }
    };
    address.checked().map_err(refuse).ok()
}
