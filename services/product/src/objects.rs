//! The object store: a folder, or a bucket of anything that speaks S3.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, Error, GetResult, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use url::Url;

/// Longest wait for a whole object to be stored.
const PUT_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for an object's first bytes, and for a deletion.
const DEADLINE: Duration = Duration::from_secs(10);

// Named, as `audit::Settings` is a group of this name too.
#[derive(clap::Args, Clone)]
#[group(id = "objects")]
pub struct Settings {
    /// Where images are kept: a folder (`file:///folder`), which replicas share, or `s3://bucket/prefix`.
    #[arg(long, env = "OBJECT_STORE_URL", default_value = "file:///data/objects")]
    pub object_store_url: Url,
    /// Address of an S3 that is not AWS's own, such as Ceph's or MinIO's; buckets are part of its path.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    pub aws_endpoint_url: Option<Url>,
    /// The bucket's region.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub aws_region: String,
    /// The access key to the bucket. Without it: the web identity or instance that the service runs as.
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub aws_access_key_id: Option<String>,
    /// The access key's secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub aws_secret_access_key: Option<String>,
}

#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Where objects are files.
    folder: Option<PathBuf>,
}

/// Most unfinished files of one object that a deletion also deletes; an upload makes one.
const MOST_UNFINISHED: usize = 10;

impl Objects {
    /// Opens the store, which need not be reachable yet.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let url = &settings.object_store_url;
        match url.scheme() {
            "file" => {
                let folder =
                    url.to_file_path().ok().context("OBJECT_STORE_URL names no folder: file:///folder")?;
                if let Err(error) = std::fs::create_dir_all(&folder) {
                    // Everything but images works without it.
                    tracing::warn!(%error, folder = %folder.display(), "objects.no_folder");
                }
                let prefix = Key::from_absolute_path(&folder).context("OBJECT_STORE_URL")?;
                let store = PrefixStore::new(LocalFileSystem::new().with_fsync(true), prefix);
                Ok(Self { store: Arc::new(store), folder: Some(folder) })
            }
            "s3" => {
                let bucket =
                    url.host_str().context("OBJECT_STORE_URL names no bucket: s3://bucket/prefix")?;
                let prefix = Key::from_url_path(url.path()).context("OBJECT_STORE_URL")?;
                let store = PrefixStore::new(s3(settings, bucket)?, prefix);
                Ok(Self { store: Arc::new(store), folder: None })
            }
            other => anyhow::bail!("OBJECT_STORE_URL is file:///... or s3://..., not {other}:"),
        }
    }

    /// Stores all or nothing.
    pub async fn put(&self, key: &str, payload: PutPayload) -> Result<(), Error> {
        within(PUT_DEADLINE, self.store.put(&Key::from(key), payload)).await.map(drop)
    }

    /// The object; `None` when there is none.
    pub async fn get(&self, key: &str) -> Result<Option<GetResult>, Error> {
        match within(DEADLINE, self.store.get(&Key::from(key))).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object if there is one, and the files of an upload that was killed.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        if let Some(folder) = &self.folder {
            within(DEADLINE, unfinished(folder, key)).await?;
        }
        match within(DEADLINE, self.store.delete(&Key::from(key))).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Deletes the files that [`LocalFileSystem`] writes before it renames them, `<key>#1` and so on:
/// it lists none of them.
async fn unfinished(folder: &Path, key: &str) -> Result<(), Error> {
    for number in 1..=MOST_UNFINISHED {
        match tokio::fs::remove_file(folder.join(format!("{key}#{number}"))).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::Generic { store: "objects", source: Box::new(error) }),
        }
    }
    Ok(())
}

fn s3(settings: &Settings, bucket: &str) -> anyhow::Result<impl ObjectStore + use<>> {
    let retry = RetryConfig { max_retries: 2, retry_timeout: DEADLINE, ..RetryConfig::default() };
    // Each call has its own deadline. A body may take as long as its reader, but no part of it may.
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(2))
        .with_timeout_disabled()
        .with_read_timeout(PUT_DEADLINE);
    // For web identities, whose settings differ between clouds.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(&settings.aws_region)
        // Not every S3 knows how to delete several at once.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_client_options(client);
    if let Some(endpoint) = &settings.aws_endpoint_url {
        let address = endpoint.as_str().trim_end_matches('/');
        builder = builder.with_endpoint(address).with_allow_http(endpoint.scheme() == "http");
    }
    if let (Some(id), Some(secret)) = (&settings.aws_access_key_id, &settings.aws_secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    builder.build().context("the S3 settings don't fit together")
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |error| Error::Generic { store: "objects", source: Box::new(error) };
    tokio::time::timeout(deadline, work).await.map_err(late)?
}
