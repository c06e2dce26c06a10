"""nginx and haproxy in front of a server, with kept-alive connections to it and retries."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.conftest import free_port

NGINX = """
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log info;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  client_max_body_size 30m;
  upstream skserve {{
    server 127.0.0.1:{port};
    server 127.0.0.1:{port} backup;
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{listen};
    server_name skserve;  # what $host is where an old client names none
    location / {{
      proxy_pass http://skserve;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_next_upstream error timeout http_502 http_503;
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 512
defaults
  mode http
  timeout connect 5s
  timeout client 90s
  timeout server 90s
  timeout http-request 30s
  option http-keep-alive
  http-reuse always
  retries 3
  retry-on conn-failure empty-response
  option redispatch
frontend front
  bind 127.0.0.1:{listen}
  default_backend skserve
backend skserve
  option httpchk GET /ping
  server one 127.0.0.1:{port} check inter 500
"""

COMMANDS = {
    "nginx": (NGINX, ["nginx", "-e", "{folder}/nginx.log", "-c", "{folder}/proxy.conf"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{folder}/proxy.conf"]),
}


@contextmanager
def in_front(proxy: str, url: str, folder: Path) -> Iterator[str]:
    """Run a proxy before the server at `url`; return its own address."""
    text, command = COMMANDS[proxy]
    port = free_port()
    facts = {"folder": folder, "port": url.rsplit(":", 1)[1], "listen": port}
    (folder / "proxy.conf").write_text(text.format(**facts))
    with (folder / "proxy.out").open("wb") as sink:
        process = subprocess.Popen(
            [part.format(**facts) for part in command], stdout=sink, stderr=sink
        )
    try:
        deadline = time.monotonic() + 20
        while not _ready(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, (folder / "proxy.out").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=2).status_code == 200
    except requests.RequestException:
        return False
