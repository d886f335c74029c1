use std::process::ExitCode;

use product::Config;

fn main() -> ExitCode {
    service::run(
        "product",
        |config: &Config| &config.process,
        async |config, lifecycle| product::start(config, &lifecycle).await.map(drop),
    )
}
