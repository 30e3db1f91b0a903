"""What precedes a tunnel's bytes: the SOCKS5 exchange, and the banner by which a server proves itself."""
