use std::process::ExitCode;

use user::Config;

fn main() -> ExitCode {
    service::run(
        "user",
        |config: &Config| &config.process,
        async |config, lifecycle| user::start(config, &lifecycle).await.map(drop),
    )
}
