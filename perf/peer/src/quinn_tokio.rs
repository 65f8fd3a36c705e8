//! quinn on tokio, one current-thread runtime for each end, with the same cipher, windows and socket buffers.

use crate::measure::{Bulk, Meter, Small, histogram, pin};
use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, TransportConfig, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidemill_peer::authority::Authority;
use tidemill_peer::{ClusterId, NodeId, bind, certificate_name};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const NODE: NodeId = NodeId(2);
const BLOCK_BYTES: usize = 1 << 20;
const MESSAGE_BYTES: usize = 1024;
const WARM_UP: u64 = 2_000;
const WINDOW_BYTES: u32 = 16 << 20;
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

struct Tls {
    root: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn tls() -> Result<Tls> {
    let day = Duration::from_secs(86_400);
    let (authority, root) = Authority::make(CLUSTER, day)?;
    let issued = authority.issue(NODE, day)?;
    Ok(Tls {
        root: CertificateDer::from_pem_slice(root.certificate_pem.as_bytes())?,
        certificate: CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?,
        key: PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?,
    })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn transport(mtu: u16) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(mtu)
        .min_mtu(1200)
        .mtu_discovery_config(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(4 * WINDOW_BYTES))
        .send_window(4 * u64::from(WINDOW_BYTES))
        .initial_rtt(Duration::from_millis(10));
    Arc::new(transport)
}

fn endpoint(socket: UdpSocket, server: Option<quinn::ServerConfig>, mtu: u16) -> Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(mtu.max(1472))?;
    let runtime = quinn::default_runtime().context("no runtime")?;
    Ok(Endpoint::new(config, server, socket, runtime)?)
}

fn server(tls: &Tls, mtu: u16) -> Result<quinn::ServerConfig> {
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![tls.certificate.clone()], tls.key.clone_key())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?));
    config.transport_config(transport(mtu));
    Ok(config)
}

async fn connect(tls: &Tls, mtu: u16, address: SocketAddr) -> Result<(Endpoint, Connection)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(tls.root.clone())?;
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    config.transport_config(transport(mtu));
    let endpoint = endpoint(bind("127.0.0.1:0".parse()?, SOCKET_BUFFER_BYTES)?, None, mtu)?;
    let connection = endpoint.connect_with(config, address, &certificate_name(CLUSTER, NODE))?.await?;
    Ok((endpoint, connection))
}

async fn accept(socket: UdpSocket, tls: &Tls, mtu: u16) -> Result<(Endpoint, Connection)> {
    let endpoint = endpoint(socket, Some(server(tls, mtu)?), mtu)?;
    let connection = endpoint.accept().await.context("the endpoint was closed")?.await?;
    Ok((endpoint, connection))
}

fn on_core<T, F>(core: usize, make: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::spawn(move || {
        pin(core % cores);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(make())
    })
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread of quinn died"))?
}

pub fn bulk(mtu: u16, bytes: u64) -> Result<Bulk> {
    let tls = Arc::new(tls()?);
    let socket = bind("127.0.0.1:0".parse()?, SOCKET_BUFFER_BYTES)?;
    let address = socket.local_addr()?;
    let tls_of_receiver = tls.clone();
    let receiver = on_core(1, move || async move {
        let (endpoint, connection) = accept(socket, &tls_of_receiver, mtu).await?;
        let mut stream = connection.accept_uni().await?;
        let (mut block, mut filled, mut received) = (vec![0; BLOCK_BYTES], 0, 0);
        while let Some(chunk) = stream.read_chunk(BLOCK_BYTES - filled, true).await? {
            block[filled..filled + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
            filled = (filled + chunk.bytes.len()) % BLOCK_BYTES;
            received += chunk.bytes.len() as u64;
        }
        connection.closed().await;
        endpoint.wait_idle().await;
        Ok(received)
    });
    let sender = on_core(0, move || async move {
        let (endpoint, connection) = connect(&tls, mtu, address).await?;
        let block = Bytes::from(vec![7; BLOCK_BYTES]);
        let meter = Meter::start();
        let mut stream = connection.open_uni().await?;
        for _ in 0..bytes / BLOCK_BYTES as u64 {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish()?;
        stream.stopped().await?;
        let (wall, cpu) = meter.seconds();
        let path = connection.stats().path;
        let note = format!("lost {} packets, MTU at the end {}", path.lost_packets, path.current_mtu);
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        Ok(Bulk { bytes, wall, cpu, note })
    });
    let bulk = joined(sender)?;
    let received = joined(receiver)?;
    anyhow::ensure!(received == bytes, "{received} of {bytes} bytes arrived");
    Ok(bulk)
}

/// A file by plain means: read into a buffer, written to the stream, read from it into a buffer, written to a file; all
/// through the page cache, which is synced at the end.
pub fn file(mtu: u16, source: &std::path::Path, target: &std::path::Path) -> Result<Bulk> {
    use std::io::{Read, Write};
    let tls = Arc::new(tls()?);
    let socket = bind("127.0.0.1:0".parse()?, SOCKET_BUFFER_BYTES)?;
    let address = socket.local_addr()?;
    let (tls_of_receiver, target) = (tls.clone(), target.to_owned());
    let receiver = on_core(1, move || async move {
        let (endpoint, connection) = accept(socket, &tls_of_receiver, mtu).await?;
        let mut stream = connection.accept_uni().await?;
        let (mut file, mut block) = (std::fs::File::create(&target)?, vec![0; BLOCK_BYTES]);
        while let Some(count) = stream.read(&mut block).await? {
            file.write_all(&block[..count])?;
        }
        file.sync_all()?;
        // The sender's clock stops when this is there.
        connection.open_uni().await?.finish()?;
        connection.closed().await;
        endpoint.wait_idle().await;
        Ok(())
    });
    let source = source.to_owned();
    let sender = on_core(0, move || async move {
        let (endpoint, connection) = connect(&tls, mtu, address).await?;
        let (mut file, mut block) = (std::fs::File::open(&source)?, vec![0; BLOCK_BYTES]);
        let meter = Meter::start();
        let mut stream = connection.open_uni().await?;
        let mut bytes = 0;
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                break;
            }
            stream.write_all(&block[..count]).await?;
            bytes += count as u64;
        }
        stream.finish()?;
        connection.accept_uni().await?;
        let (wall, cpu) = meter.seconds();
        let note = format!("lost {} packets", connection.stats().path.lost_packets);
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        Ok(Bulk { bytes, wall, cpu, note })
    });
    let bulk = joined(sender)?;
    joined(receiver)?;
    Ok(bulk)
}

pub fn small(window: usize, messages: u64) -> Result<Small> {
    let mtu = tidemill_peer::MTU_DEFAULT;
    let messages = messages + WARM_UP;
    let tls = Arc::new(tls()?);
    let socket = bind("127.0.0.1:0".parse()?, SOCKET_BUFFER_BYTES)?;
    let address = socket.local_addr()?;
    let tls_of_answering = tls.clone();
    let answering = on_core(1, move || async move {
        let (endpoint, connection) = accept(socket, &tls_of_answering, mtu).await?;
        let (mut send, mut receive) = connection.accept_bi().await?;
        while let Ok(Some(chunk)) = receive.read_chunk(1 << 16, true).await {
            send.write_chunk(chunk.bytes).await?;
        }
        endpoint.wait_idle().await;
        Ok(())
    });
    let asking = on_core(0, move || async move {
        let (endpoint, connection) = connect(&tls, mtu, address).await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        let message = Bytes::from(vec![3; MESSAGE_BYTES]);
        let (mut started, mut sent, mut received, mut bytes) = (VecDeque::new(), 0u64, 0u64, 0usize);
        let mut latency = histogram();
        let mut meter = Meter::start();
        while received < messages {
            while started.len() < window && sent < messages {
                send.write_chunk(message.clone()).await?;
                started.push_back(Instant::now());
                sent += 1;
            }
            let chunk = receive.read_chunk(1 << 16, true).await?.context("the answers ended")?;
            bytes += chunk.bytes.len();
            while bytes >= MESSAGE_BYTES {
                bytes -= MESSAGE_BYTES;
                received += 1;
                if received == WARM_UP {
                    meter = Meter::start();
                }
                let began: Instant = started.pop_front().context("an answer to nothing")?;
                if received > WARM_UP {
                    latency.saturating_record(began.elapsed().as_nanos() as u64);
                }
            }
        }
        let (wall, cpu) = meter.seconds();
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
        Ok(Small { latency, wall, cpu })
    });
    let small = joined(asking)?;
    joined(answering)?;
    Ok(small)
}
