//! What was asked for, and what of it is for the program that breaks the shop.

use std::path::Path;

pub struct Args<'a> {
    /// Drawn and printed by the program when `None`.
    pub seed: Option<u64>,
    pub minutes: u64,
    pub faults: Option<&'a str>,
    pub victims: Option<&'a str>,
    pub pace: Option<&'a str>,
    pub clients: u64,
    pub replicas: usize,
    pub failpoints: Option<u64>,
    pub keys: Option<u64>,
    pub release: bool,
    pub report: Option<&'a Path>,
    pub keep: bool,
    /// On servers that fail over.
    pub cluster: bool,
    /// On the cluster, the few faults that `test` tries.
    pub short: bool,
    /// On the cluster, how many faults.
    pub count: Option<u64>,
}

/// The program's options: all but `--keep`, and the report's folder, which is named whether it was given or not.
pub fn passed_on(args: &Args) -> Vec<String> {
    let numbers = [
        ("--seed", args.seed),
        ("--minutes", Some(args.minutes)),
        ("--clients", Some(args.clients)),
        ("--replicas", Some(args.replicas as u64)),
        ("--failpoints", args.failpoints),
        ("--keys", args.keys),
        ("--count", args.count),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, n)| Some([name.to_owned(), n?.to_string()]));
    let texts = [("--faults", args.faults), ("--victims", args.victims), ("--pace", args.pace)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some([name.to_owned(), text?.to_owned()]));
    let flags = [("--cluster", args.cluster), ("--short", args.short)];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
    numbers.chain(texts).flatten().chain(flags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_passed_on_and_those_left_out_are_not() {
        let mut args = Args {
            seed: None,
            minutes: 5,
            faults: None,
            victims: None,
            pace: None,
            clients: 16,
            replicas: 1,
            failpoints: None,
            keys: None,
            release: false,
            report: None,
            keep: true,
            cluster: false,
            short: false,
            count: None,
        };
        assert_eq!(passed_on(&args).join(" "), "--minutes 5 --clients 16 --replicas 1");
        (args.seed, args.faults, args.pace) = (Some(7), Some("kill,stop"), Some("2"));
        assert_eq!(
            passed_on(&args).join(" "),
            "--seed 7 --minutes 5 --clients 16 --replicas 1 --faults kill,stop --pace 2"
        );
    }
}
