use std::process::ExitCode;

use storefront::Config;

fn main() -> ExitCode {
    service::run(
        "storefront",
        |config: &Config| &config.process,
        async |config, lifecycle| storefront::start(&config, &lifecycle).map(drop),
    )
}
