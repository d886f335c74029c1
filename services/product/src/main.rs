use std::process::ExitCode;

use product::Config;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("openapi") {
        println!("{}", product::openapi());
        return ExitCode::SUCCESS;
    }
    service::run(
        "product",
        |config: &Config| &config.process,
        async |config, lifecycle| product::start(config, &lifecycle).await.map(drop),
    )
}
