//! The clients: channels whose two ends are in this process.
//!
//! Owns the words of the wire that an end says. Knows no load.

use agent_wormhole_relay::wire::{ClientMessage, JoinCode, Role, ServerMessage, Status, Words};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// One end.
pub struct End {
    ws: WebSocketStream<TcpStream>,
}

/// Both ends of a channel, paired.
pub struct Channel {
    pub host: End,
    pub peer: End,
}

impl Channel {
    /// Hosted at one relay, joined at another or the same.
    pub async fn open(host_at: &str, peer_at: &str) -> Result<Self, String> {
        let mut host = End::connect(host_at).await?;
        host.say(&ClientMessage::Allocate).await?;
        let ServerMessage::Welcome(welcome) = host.hear().await? else {
            return Err("not welcome".to_owned());
        };
        let mut peer = End::connect(peer_at).await?;
        peer.say(&ClientMessage::Join { nameplate: welcome.nameplate.unwrap_or_default() }).await?;
        for end in [&mut peer, &mut host] {
            while !matches!(end.hear().await?, ServerMessage::Status(Status::Paired { .. })) {}
        }
        Ok(Self { host, peer })
    }
}

impl Channel {
    /// The same under a whole code, as ends of 0.1.5 do it.
    pub async fn open_by_code(host_at: &str, peer_at: &str, code: &str) -> Result<Self, String> {
        let join =
            |role| ClientMessage::JoinCode(JoinCode { code: Words(code.to_owned()), role, statuses: false });
        let mut host = End::connect(host_at).await?;
        host.say(&join(Role::Host)).await?;
        host.answer().await?;
        let mut peer = End::connect(peer_at).await?;
        peer.say(&join(Role::Peer)).await?;
        peer.answer().await?;
        Ok(Self { host, peer })
    }
}

impl End {
    async fn connect(url: &str) -> Result<Self, String> {
        let address = url.trim_start_matches("ws://").trim_end_matches("/ws");
        let tcp = TcpStream::connect(address).await.map_err(|error| format!("{error} (see ulimit -n)"))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let (ws, _) = tokio_tungstenite::client_async_with_config(url, tcp, Some(config))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self { ws })
    }

    async fn say(&mut self, message: &ClientMessage) -> Result<(), String> {
        self.ws.send(Message::text(message.encode())).await.map_err(|error| error.to_string())
    }

    async fn hear(&mut self) -> Result<ServerMessage, String> {
        loop {
            if let Message::Text(text) = self.next().await? {
                return ServerMessage::decode(&text).map_err(|error| error.to_string());
            }
        }
    }

    /// The one text that an end of 0.1.5 gets.
    async fn answer(&mut self) -> Result<(), String> {
        match self.next().await? {
            Message::Text(text) if text.contains(r#""event""#) => Ok(()),
            other => Err(format!("not seated: {other:?}")),
        }
    }

    pub async fn send(&mut self, frame: Bytes) -> Result<(), String> {
        self.ws.send(Message::Binary(frame)).await.map_err(|error| error.to_string())
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Result<Bytes, String> {
        loop {
            if let Message::Binary(frame) = self.next().await? {
                return Ok(frame);
            }
        }
    }

    async fn next(&mut self) -> Result<Message, String> {
        match self.ws.next().await {
            Some(Ok(Message::Close(close))) => Err(format!("closed: {close:?}")),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the connection ended".to_owned()),
        }
    }
}
