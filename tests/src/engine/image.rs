//! The sample backends' images: a Dockerfile and a static binary each, nothing else. No image is ever pulled.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
};

use anyhow::{Context, Result, bail};
use bollard::{Docker, body_full, query_parameters::BuildImageOptions};
use futures_util::StreamExt;

use crate::tidegate;

const SAMPLE: &[u8] = include_bytes!("../../sample/Dockerfile");
const SAMPLE_H2: &[u8] = include_bytes!("../../sample-h2/Dockerfile");

/// Builds it unless the engine has an image of these very bytes; returns its name.
pub(super) async fn sample(docker: &Docker) -> Result<String> {
    image(docker, "tidegate-sample", SAMPLE).await
}

/// The same of the one that speaks HTTP/2.
pub(super) async fn sample_h2(docker: &Docker) -> Result<String> {
    image(docker, "tidegate-sample-h2", SAMPLE_H2).await
}

async fn image(docker: &Docker, program: &str, dockerfile: &[u8]) -> Result<String> {
    let path = tidegate::locate_static(program)?;
    let binary = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut hasher = DefaultHasher::new();
    (dockerfile, &binary).hash(&mut hasher);
    let name = format!("{program}:{:016x}", hasher.finish());
    if docker.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let context = tar(&[("Dockerfile", dockerfile), (program, &binary)]);
    let options = BuildImageOptions { t: Some(name.clone()), rm: true, ..Default::default() };
    let mut steps = std::pin::pin!(docker.build_image(options, None, Some(body_full(context.into()))));
    while let Some(step) = steps.next().await {
        if let Some(error) = step.context("build the sample image")?.error_detail {
            bail!("build the sample image: {}", error.message.unwrap_or_default());
        }
    }
    Ok(name)
}

/// A POSIX ustar archive of executable files with short names: all that a build context needs.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000755\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        // One time for all, so that equal content gives equal layers.
        put(136, "00000000000\0");
        // The checksum counts itself as spaces.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("context.tar");
        fs::write(&file, tar(&[("Dockerfile", b"FROM scratch\n"), ("binary", &[7; 1000])])).unwrap();
        let list = std::process::Command::new("tar").arg("-tvf").arg(file).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), 2, "{list}");
        assert!(lines[1].starts_with("-rwxr-xr-x 0/0 ") && lines[1].ends_with("binary"), "{list}");
    }
}
